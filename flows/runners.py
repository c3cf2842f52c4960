"""Where a flow's tasks run: in threads of this process, or on the nodes of a Ray cluster.

    with runner_of(recipe, planned):
        scoring = score.map(downloads, ...)          # the same line for both

What needs a device (`score`, `evaluate`, `check`, and `weigh` where it measures mixtures) goes to the cluster, and so
does each file of a merge that nodes share; everything else stays in this process. On Ray a device is leased by asking
for `num_gpus`, and the step runs in the process that Ray starts for it. Processes with a GPU serve one task: CUDA keeps
the devices that it first saw. Those without are used again, so that they import torch once.
"""

import copy
import logging
import os
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import RunInput
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from flows.node_futures import FailedBefore, Needs, NodeFuture, living_nodes, ray_api
from flows.nodes import gpus_per_task, on_node
from tasks.devices import open_devices
from tasks.errors import DeviceError, RecipeError
from tasks.mixtures.mixing import Mixing
from tasks.night_records import Plan
from tasks.recipe import Recipe
from tasks.records import Checkpoint

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_ON_DEVICES = ("score", "evaluate", "check")
_MERGES = "merge shard"
# More threads than these merge no faster from memory, and over a network they wait.
_MERGE_CPUS = 4
_IF_A_MERGE_DIES = (
    "if memory ran out, start Ray on the nodes with fewer CPUs (--num-cpus), so that each merges fewer files at once, "
    "and run again: files that are stored are not merged again"
)
_IF_NO_NODE_MERGES = "start such a node and run again: files that are stored are not merged again"


@contextmanager
def runner_of(recipe: Recipe, planned: Plan) -> Generator[None]:
    """Within the block of a flow, tasks that need a device run where the recipe's `runner` says.

    Args:
        recipe: Names the runner and the devices.
        planned: Says where a node of a cluster fetches a model that only this machine has downloaded.

    Raises:
        RecipeError: the runner is not installed, or the devices are none that it has.
        DeviceError: the cluster cannot be reached.
    """
    if recipe.runner == "threads":
        with open_devices(recipe.score.devices):
            yield
        return
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("runner_of is for the body of a flow")
    with NodeRunner(recipe, planned, context.task_runner) as runner, context.model_copy(update={"task_runner": runner}):
        yield


class NodeRunner(TaskRunner[PrefectFuture[Any]]):
    """Prefect's task runner for Ray, for the tasks that need a device; the others go to the flow's own runner."""

    def __init__(self, recipe: Recipe, planned: Plan, here: TaskRunner[Any]):
        super().__init__()
        self._recipe, self._planned, self._here = recipe, planned, here
        self._known = {model.digest: model for model in (planned.base, *planned.candidates, *planned.rivals)}
        self._ray = _open_runner()
        self._n_gpus, self._merge_cpus = 0, 1
        self._futures: list[NodeFuture] = []

    def duplicate(self) -> "NodeRunner":
        """One with the same settings, not started."""
        return NodeRunner(self._recipe, self._planned, self._here)

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectFuture[Any]:
        """Start a task where it belongs. Waits for what its arguments still wait for, such as a download."""
        if (needs := self._needs(task.name, parameters)) is None:
            return self._here.submit(task, parameters, wait_for, dependencies)
        try:
            given = {name: self._as_planned(_settled(value)) for name, value in parameters.items()}
        except Exception as error:
            return FailedBefore(error)
        there = copy.copy(task)
        there.fn = on_node(task.fn, self._recipe.connections, needs.gpus)
        future = NodeFuture(
            task.name, lambda: self._submit_once(needs, there, given, wait_for, dependencies), needs, self._futures
        )
        self._futures.append(future)
        return future

    def _needs(self, name: str, parameters: dict[str, Any]) -> Needs | None:
        """What a task asks a node for; None for one that stays in this process."""
        if name == _MERGES:
            return Needs(self._merge_cpus, 0, _IF_A_MERGE_DIES, _IF_NO_NODE_MERGES)
        return Needs(1, self._n_gpus) if name in _ON_DEVICES or parameters.get("mixing") is not None else None

    def _submit_once(self, needs: Needs, *what: Any) -> Any:
        from prefect_ray.context import remote_options  # pyright: ignore[reportMissingImports]

        # Ray's own retries would run the task again under a task run that Prefect believes to be running.
        with remote_options(num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=0, max_calls=1 if needs.gpus else 0):
            return self._ray.submit(*what)

    def _as_planned(self, value: Any) -> Any:
        """With models named by where any node can fetch them, not by where this machine has put them."""
        if isinstance(value, Checkpoint) and (known := self._known.get(value.digest)):
            return replace(value, uri=known.uri, adapter=known.adapter)
        if isinstance(value, Mixing):
            candidates = tuple(self._as_planned(each) for each in value.candidates)
            return replace(value, base=self._as_planned(value.base), candidates=candidates)
        return value

    def __enter__(self) -> "NodeRunner":
        super().__enter__()
        address = os.environ.get("RAY_ADDRESS", "")
        try:
            _check_reachable(address)
            self._ray.__enter__()
        except (OSError, RuntimeError) as error:
            raise DeviceError(
                f"runner: ray: the cluster {address or 'of this machine'} cannot be used: {error}; "
                "RAY_ADDRESS says where it is, and its Ray and Python must be of the same version as ours"
            ) from error
        most_cpus = max((int(node.get("CPU", 0)) for node in living_nodes()), default=1)
        self._merge_cpus = max(1, min(_MERGE_CPUS, most_cpus))
        self._n_gpus = gpus_per_task(self._recipe.score.devices, ray_api().cluster_resources().get("GPU", 0))
        logger.info("on the Ray cluster with %d nodes, %d GPUs for each task", len(living_nodes()), self._n_gpus)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for future in self._futures:
            future.cancel()
        self._ray.__exit__(*exc_info)
        super().__exit__(*exc_info)


def _settled(value: Any) -> Any:
    """An argument with what it waits for: a future lives in this process alone."""
    return value.result() if isinstance(value, PrefectFuture) else value


def _check_reachable(address: str) -> None:
    """Try to connect; ray.init itself goes on trying for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _open_runner() -> Any:
    """prefect-ray's runner of the cluster that RAY_ADDRESS names, else of one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from prefect_ray import RayTaskRunner  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RecipeError(
            "runner: ray needs packages that are not installed; pip install 'lm-cocktail-flows[ray]', here and on "
            "every node of the cluster"
        ) from error
    # What processes on nodes print belongs into Ray's own logs: a command may print JSON here.
    return RayTaskRunner(init_kwargs={"log_to_driver": False})
