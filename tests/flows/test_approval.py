"""A person is asked in the UI whether a version goes live: on a real server, answered over REST as the UI does."""

import logging
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_site import ask
from pydantic import ValidationError
from waiting_releases import BY_HAND, LIVE, NEW, OTHER, make_releases

from flows.approval import approve, deployment_name, request_approval
from flows.deploy import deploy_recipe
from tasks.errors import CocktailError
from tasks.recipe import Recipe
from tasks.registry.promotion import promote, rollback, unblock
from tasks.registry.releases import Registry
from tasks.settings import PublishSettings
from tests.flows.test_events import events_of

pytestmark = [pytest.mark.usefixtures("prefect_server")]

YES = {"answer": "send it live", "by": "Ada", "reason": "read the report"}
NO = {"answer": "refuse it", "by": "Ada", "reason": "it is rude"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Three releases of a few bytes, the first of them live."""
    return make_releases(tmp_path / "releases")


@pytest.fixture(scope="module")
def pool(prefect_server: None) -> Iterator[str]:
    name = f"pool-{uuid.uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        yield name
        client.delete_work_pool(name)


def recipe_for(registry: Registry, **publish: Any) -> Recipe:
    to = registry.location.rpartition("/")[0]
    return Recipe.model_validate({
        "name": registry.name, "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": [to], "promote": "manual", "approval_hours": 1} | publish,
    })  # fmt: skip


@pytest.fixture
def recipe(registry: Registry, pool: str) -> Recipe:
    """Its deployment is there, and so is the one that asks."""
    recipe = recipe_for(registry)
    deploy_recipe(recipe, name=recipe.name, pool=pool)
    return recipe


def asked(recipe: Recipe, compared_with: str = LIVE) -> str:
    """What a refresh does when NEW waits; the id of the run that asks."""
    said = request_approval(recipe, NEW, compared_with)
    assert said is not None
    (found,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", said)
    return found


def work(run_id: str) -> FlowRun:
    """Run a flow run as the process does that a worker starts for it; the run as the server has it then."""
    with get_client(sync_client=True) as client:
        try:
            run_flow(approve, flow_run=client.read_flow_run(uuid.UUID(run_id)), return_type="state")
        except Pause:
            pass  # Suspended: a worker's process ends here.
        return client.read_flow_run(uuid.UUID(run_id))


def answer(run_id: str, given: dict[str, Any]) -> str:
    """Fill in the form of the UI."""
    done = ask("POST", f"{PREFECT_API_URL.value()}/flow_runs/{run_id}/resume", {"run_input": given})
    return done.raise_for_status().json()["status"]


def retry(run_id: str) -> None:
    """Press Retry in the UI."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    ask("POST", f"{PREFECT_API_URL.value()}/flow_runs/{run_id}/set_state", {"state": state}).raise_for_status()


def test_a_yes_sends_the_version_live_and_the_history_says_who_and_why(recipe: Recipe, registry: Registry):
    run_id = asked(recipe)
    run = work(run_id)
    assert (run.state.type.value, run.state.name) == ("PAUSED", "Suspended")
    assert registry.resolve("champion") == LIVE
    key = run.state.state_details.run_input_keyset["description"]
    shown = ask("GET", f"{PREFECT_API_URL.value()}/flow_runs/{run_id}/input/{key}").raise_for_status().json()
    assert NEW in shown and f"artifact `{registry.name}-question`" in shown
    with get_client(sync_client=True) as client:
        told = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(
                key=ArtifactCollectionFilterKey(any_=[f"{registry.name}-question"])
            ),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        )
    assert ["| clinc | accuracy ↑ | 0.9000 | 0.8000 |  |" in each.data for each in told] == [True]

    # What, who and why must be said, and the question stands until they are: a form that was sent too early is no no.
    assert answer(run_id, {"by": "Ada", "reason": "read the report"}) == "REJECT"
    assert answer(run_id, {"answer": "send it live"}) == "REJECT"
    assert answer(run_id, YES | {"by": ""}) == "REJECT"
    assert answer(run_id, YES) == "ACCEPT"
    run = work(run_id)
    assert (run.state.type.value, run.state.name) == ("COMPLETED", "Approved")
    assert run.state.message == f"champion points at {NEW}: approved by Ada: read the report"
    state = registry.read_alias("champion")
    assert (state.version, state.reason) == (NEW, "read the report")
    assert state.promoted_by == f"Ada (flow run {run_id})"


def test_a_no_is_kept_and_nobody_is_asked_again_until_somebody_says_otherwise(recipe: Recipe, registry: Registry):
    run_id = asked(recipe)
    work(run_id)
    assert answer(run_id, NO) == "ACCEPT"
    run = work(run_id)
    assert (run.state.type.value, run.state.name) == ("COMPLETED", "Refused")
    assert registry.resolve("champion") == LIVE
    # As a night finds it, whatever its question: other rules, other data, or promote: auto by now.
    fingerprint = registry.read_manifest(NEW)["model_fingerprint"]
    assert registry.is_blocked(fingerprint)
    assert request_approval(recipe, NEW, LIVE) is None
    [refusal] = [decision for decision in registry.decisions() if decision.status == "refused"]
    assert refusal.version == NEW
    assert refusal.gate.reasons == (f"refused by Ada (flow run {run_id}): it is rude", "clinc: +0.1")
    [event] = events_of(registry.location, "lm-cocktail.release.refused")
    assert event["payload"] == {
        "alias": "champion", "version": NEW, "destination": registry.location, "reason": "it is rude",
    }  # fmt: skip

    unblock(registry, NEW, **BY_HAND)
    assert not registry.is_blocked(fingerprint)


def test_without_an_answer_the_version_waits_on_and_a_retry_asks_again(recipe: Recipe, registry: Registry):
    recipe = recipe_for(registry, approval_hours=1 / 3600)
    run_id = asked(recipe)
    work(run_id)
    time.sleep(1.1)  # The one second in which it could be answered.
    assert answer(run_id, YES) == "REJECT"
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(uuid.UUID(run_id)).state
    assert state.type.value == "FAILED" and "never resumed" in state.message
    assert registry.resolve("champion") == LIVE
    said = request_approval(recipe, NEW, LIVE)
    assert f"`cocktail promote {registry.location} {NEW} --reason WHY` sends it live" in said
    assert f"{run_id} asked about it and ended as Failed" in said

    retry(run_id)
    assert work(run_id).state.name == "Suspended"


def test_a_yes_to_a_comparison_that_is_over_moves_nothing_until_a_retry_finds_it_stands_again(
    recipe: Recipe, registry: Registry
):
    run_id = asked(recipe)
    work(run_id)
    promote(registry, OTHER, "champion", expected=registry.read_alias("champion"), **BY_HAND)
    answer(run_id, YES)
    state = work(run_id).state
    assert state.type.value == "FAILED"
    assert f"champion points at {OTHER} now: ops moved it at 2026-11-20T03:00:00+00:00 (by hand)" in state.message
    assert f"compared {NEW} with {LIVE}" in state.message
    assert registry.resolve("champion") == OTHER
    assert not registry.is_blocked(registry.read_manifest(NEW)["model_fingerprint"])

    rollback(registry, "champion", **BY_HAND)
    retry(run_id)
    assert work(run_id).state.name == "Approved"  # The answer is still known; it was not asked for again.
    assert registry.read_alias("champion").reason == YES["reason"]


def test_what_went_live_meanwhile_is_not_asked(recipe: Recipe, registry: Registry):
    run_id = asked(recipe)
    promote(registry, NEW, "champion", expected=registry.read_alias("champion"), **BY_HAND)
    state = work(run_id).state
    assert state.name == "Approved" and "ops moved it" in state.message


def test_the_same_question_is_asked_once_and_another_champion_makes_it_another(recipe: Recipe):
    first = asked(recipe)
    assert asked(recipe) == first
    assert asked(recipe, OTHER) != first


def test_without_a_server_that_stays_nobody_is_asked_and_the_command_is_told_at_once(registry: Registry):
    with temporary_settings({PREFECT_API_URL: None}):
        said = request_approval(recipe_for(registry, alias="canary"), NEW, None)
    command = f"cocktail promote {registry.location} {NEW} --alias canary --reason WHY"
    assert said == f"{NEW} waits for a person: `{command}` sends it live"


def test_without_hours_or_with_promote_auto_nobody_is_asked(registry: Registry):
    assert "flow run" not in request_approval(recipe_for(registry, approval_hours=None), NEW, LIVE)
    assert request_approval(recipe_for(registry, approval_hours=None, promote="auto"), NEW, LIVE) is None
    assert request_approval(recipe_for(registry), None, LIVE) is None


def test_a_missing_deployment_is_named_and_fails_no_night(registry: Registry, caplog: pytest.LogCaptureFixture):
    recipe = recipe_for(registry).model_copy(update={"name": "unknown"})
    with caplog.at_level(logging.WARNING, "flows.approval"):
        said = request_approval(recipe, NEW, LIVE)
    assert "waits for a person" in said and "flow run" not in said
    assert f"there is no deployment {deployment_name(recipe)}; `cocktail deploy` makes it" in caplog.text


def test_a_server_that_does_not_answer_fails_no_night(registry: Registry, caplog: pytest.LogCaptureFixture):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), caplog.at_level(logging.WARNING):
        said = request_approval(recipe_for(registry), NEW, LIVE)
    assert "waits for a person" in said
    assert "flow run not started" in caplog.text and "the next run tries again" in caplog.text


def test_a_registry_that_cannot_be_read_after_a_release_fails_no_night(
    registry: Registry, caplog: pytest.LogCaptureFixture
):
    (Path(registry.location) / "aliases" / "champion.json").write_text("{", encoding="utf-8")
    said = request_approval(recipe_for(registry), NEW, LIVE)
    assert "waits for a person" in said and "its registry cannot be read" in caplog.text


def test_a_run_without_a_deployment_says_that_nobody_could_resume_it(registry: Registry):
    with pytest.raises(CocktailError, match="only the run of a deployment can wait for a person"):
        approve(registry.location, NEW, LIVE)


def test_hours_to_approve_what_goes_live_by_itself_are_refused():
    with pytest.raises(ValidationError, match="approval_hours: 48 hours to approve what promote: auto sends live"):
        PublishSettings(to=["/releases"], approval_hours=48)
