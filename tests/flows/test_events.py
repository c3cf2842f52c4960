"""Events on releases, as automations on the server get them."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter

from flows.events import announce, announce_release
from tasks.recipe import Recipe
from tasks.records import Release

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]


def events_of(model: str, name: str) -> list[dict]:
    """What the server has got; events travel by themselves, so they are waited for."""
    deadline = time.monotonic() + 30
    asked = EventFilter(event=EventNameFilter(name=[name])).model_dump(mode="json")
    while True:
        with get_client(sync_client=True) as client:
            events = client._client.post("/events/filter", json={"filter": asked}).json()["events"]
        found = [event for event in events if event["resource"]["prefect.resource.id"] == f"lm-cocktail.model.{model}"]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_release_that_goes_live_is_an_event_and_one_that_waits_is_none(tmp_path: Path):
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": ["s3://models"], "alias": "canary"},
    })  # fmt: skip
    version = f"{datetime.now(UTC):%Y%m%d}-0123456789ab"

    @flow
    def night() -> None:
        announce_release(recipe, Release("waits", 1, ("s3://models/...",), "0" * 64, promoted=False))
        announce_release(recipe, Release(version, 2, ("s3://models/...",), "0" * 64, promoted=True))

    night()

    [event] = events_of("s3://models/assistant", "lm-cocktail.release.promoted")
    assert event["resource"]["prefect.resource.name"] == "assistant"
    assert event["payload"] == {
        "alias": "canary", "version": version, "destination": "s3://models/assistant", "reason": "the gate passed",
    }  # fmt: skip


def test_a_rollback_is_an_event():
    @flow
    def morning() -> None:
        announce("rolled-back", "s3://models/assistant", "champion", "20261119-0123456789ab", "answers got worse")

    morning()

    [event] = events_of("s3://models/assistant", "lm-cocktail.release.rolled-back")
    assert event["payload"]["reason"] == "answers got worse"
