"""What all task faces share: when to retry, and how progress reaches the Prefect UI."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture

from tasks.errors import is_transient

logger = logging.getLogger(__name__)

_ARTIFACT_SECONDS = 2.0
_LOG_SECONDS = 10.0

ReportProgress = Callable[[int, int], None]


def is_transient_failure(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn`: retry what may pass, never what a user must mend."""
    try:
        state.result()
    except Exception as error:
        return is_transient(error)
    return False


def outcomes(futures: Sequence[Any] | None) -> list[Any]:
    """Wait for mapped task runs; each one's result, or the error it ended with after its retries.

    Without any futures an empty list, as of a step that a recipe does not need; what is no future is given back.
    """
    return [each.result(raise_on_failure=False) if isinstance(each, PrefectFuture) else each for each in futures or ()]


def settled(futures: Sequence[Any]) -> list[Any]:
    """Wait for mapped task runs; their results, or the first one's error. What is no future is given back."""
    return [each.result() if isinstance(each, PrefectFuture) else each for each in futures]


RETRIED: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [1.0, 10.0],
    "retry_condition_fn": is_transient_failure,
    "cache_policy": NO_CACHE,
    "result_serializer": "json",
}
"""Options of every task that reaches a device, a disk or a network."""


@contextmanager
def progress_in_ui(label: str) -> Generator[ReportProgress]:
    """A callback `(done, total)` that shows as a progress bar at the task run and, on long work, in the log.

    The bar is made at the first report of work that is not done yet: a task that the cache answers makes none, nor does
    one that has only its end to report. It must be called in the thread of the task run, or in one with a copy of its
    context, by one thread at a time.
    """
    bar = _ProgressBar(label)
    yield bar.report
    bar.finish()


class _ProgressBar:
    """Throttled: a report costs nothing unless enough time has passed since the last one that was shown."""

    def __init__(self, label: str):
        self._label = label
        self._artifact: Any = None
        self._shown = self._logged = time.monotonic()

    def report(self, done: int, total: int) -> None:
        """Take note of how much is done."""
        if done >= total:
            # The bar is filled when the task ends, and the step's own line in the log says that it is done.
            return
        now = time.monotonic()
        percent = 100.0 * done / total
        if now - self._shown >= _ARTIFACT_SECONDS:
            self._shown = now
            # The UI writes all the digits that it gets.
            self._show(round(percent))
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            logger.info("%s: %.0f %%", self._label, percent)

    def finish(self) -> None:
        """Fill the bar, if there is one."""
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = create_progress_artifact(percent, description=self._label)
        else:
            update_progress_artifact(self._artifact, progress=percent)
