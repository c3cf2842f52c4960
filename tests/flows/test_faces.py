"""What a person sees of long work while it goes on."""

import logging

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact

from tasks import faces
from tasks.faces import progress_in_ui

pytestmark = [pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every report is shown, as if enough time had passed since the last."""
    monkeypatch.setattr(faces, "_ARTIFACT_SECONDS", 0.0)
    monkeypatch.setattr(faces, "_LOG_SECONDS", 0.0)


def bars_after(*reports: tuple[int, int]) -> list[Artifact]:
    """The progress bars of a task that reports so much of so much."""

    @task
    def work() -> None:
        with progress_in_ui("score law") as report:
            for done, total in reports:
                report(done, total)

    @flow
    def night() -> None:
        work()

    run_id = night(return_state=True).state_details.flow_run_id
    with get_client(sync_client=True) as client:
        return client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))


def test_long_work_has_one_bar_that_is_full_at_the_end_and_says_in_the_log_how_far_it_is(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.INFO, "tasks.faces"):
        [bar] = bars_after((1, 4), (3, 4), (4, 4))
    assert (bar.type, bar.description, bar.data) == ("progress", "score law", 100)
    told = [record.getMessage() for record in caplog.records if record.name == "tasks.faces"]
    assert told == ["score law: 25 %", "score law: 75 %"]


@pytest.mark.parametrize("reports", [(), ((64, 64),), ((0, 0),)])
def test_work_that_the_cache_answers_or_that_reports_only_its_end_has_no_bar(reports: tuple[tuple[int, int], ...]):
    assert bars_after(*reports) == []
