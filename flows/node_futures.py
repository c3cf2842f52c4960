"""Task runs on a Ray cluster, which outlive the process and the node that they run on."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from prefect.futures import PrefectFuture, PrefectTaskRunFuture
from prefect.states import Crashed

from tasks.errors import DeviceError, WorkerDiedError

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""How often a task is submitted whose process or node dies; as often as one is tried whose worker dies here."""

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 300.0


def ray_api() -> Any:
    """The module ray, which an extra installs."""
    import ray  # pyright: ignore[reportMissingImports]

    return ray


def living_nodes() -> list[dict[str, float]]:
    """What each node of the cluster that is alive has in all: `CPU`, `GPU` and others by name."""
    return [node["Resources"] for node in ray_api().nodes() if node["Alive"]]


class Needs(NamedTuple):
    """What a task asks a node for, and what to do where that cannot be had or does not suffice."""

    cpus: int
    gpus: int
    if_it_dies: str = (
        "if memory ran out, lower score.batch_tokens, and if the time limit passed, raise score.timeout_seconds"
    )
    if_there_is_none: str = "start such a node, or change score.devices"


class NodeFuture(PrefectTaskRunFuture[Any]):
    """A task run on the cluster and, where its process or its node dies, the one that is submitted in its place.

    Prefect's retries run in the process that died, so they cannot help there.
    """

    def __init__(self, name: str, submit: Callable[[], Any], needs: Needs, siblings: Sequence["NodeFuture"]):
        self._name, self._submit, self._needs, self._siblings = name, submit, needs, siblings
        self._run = submit()
        self._attempts = 1
        self._error: DeviceError | None = None
        super().__init__(self._run.task_run_id)

    def wait(self, timeout: float | None = None) -> None:
        """Return when the task has ended for good, or after `timeout` seconds."""
        last_home = time.monotonic()
        end = None if timeout is None else last_home + timeout
        while self._final_state is None:
            left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - time.monotonic())
            if left <= 0:
                return
            self.look(left)
            # Else those that died with the same node would be submitted again one after the other.
            for sibling in self._siblings:
                sibling.look(0)
            if self._has_home():
                last_home = time.monotonic()
            elif time.monotonic() - last_home > _PATIENCE_SECONDS:
                self._be_homeless()

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """What the task returned. With `raise_on_failure` false an error is returned, not raised."""
        self.wait(timeout)
        if self._final_state is None:
            raise TimeoutError(f"{self._name} did not end within {timeout} seconds")
        if self._error is None:
            return self._run.result(raise_on_failure=raise_on_failure)
        if raise_on_failure:
            raise self._error
        return self._error

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call `fn` when the task has ended, which is waited for: whether it dies is known no earlier."""
        self.wait()
        fn(self)

    def look(self, seconds: float) -> None:
        """Take note of how it stands, after at most so many seconds; submit it again if it died."""
        ray = ray_api()
        if self._final_state is not None:
            return
        if not ray.wait([self._run.wrapped_future], timeout=seconds)[0]:
            return
        try:
            ray.get(self._run.wrapped_future)
        except ray.exceptions.RayTaskError as error:
            self._give_up(DeviceError(f"{self._name}: the cluster cannot run it: {_last_line(error)}"))
        except ray.exceptions.RayError as error:
            self._replace(error)
        else:
            self._run.wait()
            self._final_state = self._run.state

    def _replace(self, error: Exception) -> None:
        """Submit the task again, whose process or node died, unless that has happened too often."""
        if self._attempts == MOST_ATTEMPTS:
            self._give_up(
                WorkerDiedError(
                    f"{self._name}: its process on the cluster died {MOST_ATTEMPTS} times, the last time with "
                    f"{type(error).__name__}; {self._needs.if_it_dies}; Ray's logs on the node say why"
                )
            )
            return
        self._attempts += 1
        logger.warning(
            "%s: its process or node died (%s); attempt %d of %d",
            self._name, type(error).__name__, self._attempts, MOST_ATTEMPTS,
        )  # fmt: skip
        self._run = self._submit()
        self._task_run_id = self._run.task_run_id

    def cancel(self) -> None:
        """End the process of a task that nobody waits for any more."""
        ray = ray_api()
        if self._final_state is None:
            ray.cancel(self._run.wrapped_future, force=True)

    def _has_home(self) -> bool:
        needed = {"CPU": self._needs.cpus, "GPU": self._needs.gpus}
        return any(all(node.get(kind, 0) >= n for kind, n in needed.items()) for node in living_nodes())

    def _be_homeless(self) -> None:
        """Ray waits for ever for a node that can take a task; one that autoscaling brings must come in time."""
        self.cancel()
        self._give_up(
            DeviceError(
                f"{self._name}: for {_PATIENCE_SECONDS:g} s no node of the Ray cluster has had "
                f"{self._needs.cpus} CPU and {self._needs.gpus} GPUs; {self._needs.if_there_is_none}"
            )
        )

    def _give_up(self, error: DeviceError) -> None:
        self._error = error
        self._final_state = Crashed(message=str(error))


class FailedBefore(PrefectTaskRunFuture[Any]):
    """A task that was not started, because what it needs could not be had."""

    def __init__(self, error: Exception):
        super().__init__(uuid4())
        self._error = error
        self._final_state = Crashed(message=str(error))

    def wait(self, timeout: float | None = None) -> None:
        """It has ended already."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """The error of what it needed."""
        if raise_on_failure:
            raise self._error
        return self._error

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call `fn` at once."""
        fn(self)


def _last_line(error: Exception) -> str:
    """Of Ray's error, which holds the whole traceback of the other process."""
    return str(error).strip().rpartition("\n")[2]
