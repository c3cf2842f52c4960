"""Events on nights and releases, as automations on the server get them."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter

from flows.events import (
    announce,
    announce_failure,
    announce_rejected,
    announce_release,
    announce_unchanged,
    announce_weights,
)
from flows.outcome import RefreshResult
from flows.run import StepClock
from tasks.recipe import Recipe
from tasks.records import GateDecision, Release
from tasks.weight_records import MergeWeights, Trust

pytestmark = [pytest.mark.usefixtures("prefect_server")]


def events_of(model: str, name: str, count: int = 1) -> list[dict]:
    """What the server has got; events travel by themselves, so they are waited for."""
    deadline = time.monotonic() + 120
    asked = EventFilter(event=EventNameFilter(name=[name])).model_dump(mode="json")
    while True:
        with get_client(sync_client=True) as client:
            events = client._client.post("/events/filter", json={"filter": asked}).json()["events"]
        found = [event for event in events if event["resource"]["prefect.resource.id"] == f"lm-cocktail.model.{model}"]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_release_that_goes_live_is_an_event_and_one_that_is_blocked_is_none(tmp_path: Path):
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": ["s3://models"], "alias": "canary"},
    })  # fmt: skip
    version = f"{datetime.now(UTC):%Y%m%d}-0123456789ab"

    @flow
    def night() -> None:
        announce_release(recipe, Release("blocked", 1, ("s3://models/...",), "0" * 64, promoted=False))
        announce_release(recipe, Release(version, 2, ("s3://models/...",), "0" * 64, promoted=True))

    night()

    [event] = events_of("s3://models/assistant", "lm-cocktail.release.promoted")
    assert event["resource"]["prefect.resource.name"] == "assistant"
    assert event["payload"] == {
        "alias": "canary", "version": version, "destination": "s3://models/assistant", "reason": "the gate passed",
    }  # fmt: skip


def test_a_rollback_is_an_event_and_so_is_a_release_that_waits_for_a_person():
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": ["s3://models"], "promote": "manual"},
    })  # fmt: skip

    @flow
    def morning() -> None:
        announce_release(recipe, Release("waits", 1, ("s3://models/...",), "0" * 64, promoted=False))
        announce("rolled-back", "s3://models/assistant", "champion", "20261119-0123456789ab", "answers got worse")

    morning()

    [event] = events_of("s3://models/assistant", "lm-cocktail.release.rolled-back")
    assert event["payload"]["reason"] == "answers got worse"
    [event] = events_of("s3://models/assistant", "lm-cocktail.release.pending")
    assert event["payload"]["version"] == "waits"


def recipe_of(name: str, **sections: Any) -> Recipe:
    candidate = {"name": "base", "model": "org/base"}
    content = {"name": name, "model_type": "decoder", "candidates": [candidate], "weigh": {"strategy": "uniform"}}
    return Recipe.model_validate(content | sections)


JUMP = MergeWeights(
    "loss", {"law": 0.7, "news": 0.3}, Trust(1.7, previous={"law": 0.2, "chat": 0.8}, changes=("law ...",))
)


def test_a_rejection_says_why_what_is_live_and_where_to_read_more():
    recipe = recipe_of("rejected", publish={"to": ["s3://models/"]})

    @flow
    def night() -> None:
        announce_rejected(
            recipe, GateDecision(False, ("clinc: ... failed", "wordnet: ... passed")), "v1", "s3://r.html"
        )

    night()

    [event] = events_of("s3://models/rejected", "lm-cocktail.refresh.rejected")
    assert event["payload"] == {
        "destination": "s3://models/rejected", "reasons": ["clinc: ... failed", "wordnet: ... passed"],
        "champion": "v1", "report": "s3://r.html",
    }  # fmt: skip
    assert [each["prefect.resource.role"] for each in event["related"]] == ["flow-run", "flow"]


def test_unchanged_nights_are_counted_from_the_day_of_the_decision():
    recipe = recipe_of("unchanged", publish={"to": ["s3://models"]})
    since = (datetime.now(UTC) - timedelta(days=4)).isoformat(timespec="seconds")

    @flow
    def night() -> None:
        announce_unchanged(recipe, RefreshResult("unchanged", "the same inputs", "v1", decided_at=since))
        announce_unchanged(recipe, RefreshResult("unchanged", "blocked"))

    night()

    events = events_of("s3://models/unchanged", "lm-cocktail.refresh.unchanged", count=2)
    known, unknown = sorted(events, key=lambda event: event["payload"]["nights"], reverse=True)
    assert known["payload"] == {
        "destination": "s3://models/unchanged", "version": "v1", "since": since, "nights": 4,
        "reason": "the same inputs",
    }  # fmt: skip
    assert known["resource"]["lm-cocktail.nights-unchanged"] == "||||"
    assert (unknown["payload"]["since"], unknown["payload"]["nights"]) == (None, 0)


def test_weights_that_jumped_are_told_with_those_of_candidates_that_came_and_went():
    recipe = recipe_of("jumped", publish={"to": ["s3://models"]})

    @flow
    def night() -> None:
        announce_weights(recipe, MergeWeights("loss", {"law": 0.7}, Trust(1.0, previous={"law": 0.7})))
        announce_weights(recipe, JUMP)

    night()

    [event] = events_of("s3://models/jumped", "lm-cocktail.weights.jumped")
    assert event["payload"]["changes"] == ["law ..."]
    assert event["payload"]["candidates"] == [
        {"candidate": "law", "before": 0.2, "after": 0.7},
        {"candidate": "news", "before": None, "after": 0.3},
        {"candidate": "chat", "before": 0.8, "after": None},
    ]


@flow(name="refresh", on_failure=[announce_failure])
def failing(recipe: Recipe, dry_run: bool = False) -> None:
    with StepClock().step("weigh"):
        raise ValueError(f"no weights for {recipe.name}")


@flow(name="candidate-ready", on_failure=[announce_failure])
def calls_failing(recipe: Recipe) -> None:
    failing(recipe)


def test_an_error_is_told_once_with_its_step_however_many_flows_it_goes_through():
    recipe = recipe_of("failing", publish={"to": ["s3://models"]})
    with pytest.raises(ValueError, match="no weights"):
        failing(recipe, dry_run=True)
    with pytest.raises(ValueError, match="no weights"):
        calls_failing(recipe)

    # Events of one process arrive in order: what comes last shows that nothing else came before.
    announce("refused", "s3://models/failing", "champion", "v1", "the end")
    events_of("s3://models/failing", "lm-cocktail.release.refused")
    [event] = events_of("s3://models/failing", "lm-cocktail.refresh.failed")
    assert event["payload"] == {
        "destination": "s3://models/failing", "error": "ValueError", "message": "no weights for failing",
        "step": "weigh",
    }  # fmt: skip
    run = event["related"][0]
    assert run["prefect.resource.role"] == "flow-run" and run["prefect.resource.id"].startswith("prefect.flow-run.")


def test_a_run_that_fails_for_its_parameters_is_told_too():
    with pytest.raises(Exception, match="invalid parameters"):
        failing({"name": "broken", "publish": {"to": ["s3://models"]}})  # pyright: ignore[reportArgumentType]
    with pytest.raises(Exception, match="invalid parameters"):
        failing("no recipe")  # pyright: ignore[reportArgumentType]

    [event] = events_of("s3://models/broken", "lm-cocktail.refresh.failed")
    assert event["payload"]["error"] == "ParameterTypeError" and event["payload"]["step"] is None
    [event] = events_of("unknown", "lm-cocktail.refresh.failed")
    assert "recipe" in event["payload"]["message"]


def test_what_is_published_nowhere_has_no_events(monkeypatch: pytest.MonkeyPatch):
    emitted: list[str] = []
    monkeypatch.setattr("flows.events.emit_event", lambda event, *_, **__: emitted.append(event))
    recipe = recipe_of("nowhere")
    announce_release(recipe, Release("v1", 1, (), "0" * 64, promoted=True))
    announce_rejected(recipe, GateDecision(False, ()), None, None)
    announce_unchanged(recipe, RefreshResult("unchanged", "the same inputs"))
    announce_weights(recipe, JUMP)
    assert emitted == []
    announce_weights(recipe_of("somewhere", publish={"to": ["s3://models"]}), JUMP)
    assert emitted == ["lm-cocktail.weights.jumped"]
