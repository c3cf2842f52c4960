"""What is shown of a night must not decide how it ends."""

from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

import flows.artifacts
from flows.artifacts import name_failure, show_card, show_gate, show_weights
from flows.run import StepClock
from tasks.errors import CocktailError, PreflightError
from tasks.merge.task import merge
from tasks.recipe import Recipe
from tasks.records import GateDecision, Release, Score
from tasks.weight_records import MergeWeights, Trust


def test_a_card_that_cannot_be_read_is_logged_and_the_release_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": [str(tmp_path)]},
    })  # fmt: skip
    show_card(recipe, Release("20261120-0123456789ab", 1, (), "0" * 64, promoted=True))
    assert "the card of 20261120-0123456789ab is not shown: " in caplog.text


def test_what_was_said_while_losses_were_measured_stands_above_the_weights(monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    monkeypatch.setattr(
        flows.artifacts, "create_table_artifact", lambda rows, key, description: shown.append(description)
    )
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"},
    })  # fmt: skip
    scores = [Score("base", (1.0,), 10, 1.0, warnings=("1 of 2 texts is cut",))]
    show_weights(recipe, scores, MergeWeights("uniform", {"base": 1.0}, Trust(1.0)))
    assert "- Warning: losses of base: 1 of 2 texts is cut" in shown[0].splitlines()


def test_a_merge_whose_worker_died_is_tried_again_since_it_goes_on_where_it_was():
    assert merge.retries == 2


@pytest.mark.usefixtures("prefect_server")
def test_the_name_of_a_rejected_night_says_why_at_the_top_of_its_page():
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"},
    })  # fmt: skip

    @flow(flow_run_name="night")
    def night(passed: bool) -> str:
        show_gate(recipe, GateDecision(passed, ("clinc: accuracy 0.5 < min 0.6: failed", "wordnet: passed")))
        return str(flow_run.id)

    with get_client(sync_client=True) as client:
        assert client.read_flow_run(night(False)).name == (
            "refresh assistant: rejected: clinc: accuracy 0.5 < min 0.6: failed"
        )
        assert client.read_flow_run(night(True)).name == "night"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PreflightError(["examples: no such file", "law: no such folder"]), "examples: no such file (and 1 more)"),
        # 200 characters with the mark that says that there is more: 39 words of five, each but the last with a space.
        (CocktailError("word\n" * 100), " ".join(["word"] * 39) + " ..."),
    ],
)
def test_the_name_of_a_failed_night_says_where_and_why_at_the_top_of_its_page(error: Exception, reason: str):
    @flow(flow_run_name="night", on_failure=[name_failure])
    def night() -> None:
        with StepClock().step("plan"):
            raise error

    state = night(return_state=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.name == f"night: failed in plan: {reason}"


@pytest.mark.usefixtures("prefect_server")
def test_the_name_of_a_night_that_failed_outside_its_steps_says_why():
    @flow(flow_run_name="night", on_failure=[name_failure])
    def night() -> None:
        raise PreflightError(["no such block"])

    state = night(return_state=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.name == "night: failed: no such block"
