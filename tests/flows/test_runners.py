"""Choosing where a flow's tasks run; tests/flows/test_ray.py has a real cluster."""

import sys
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

import tasks.devices
from flows.node_futures import MOST_ATTEMPTS, Needs, NodeFuture
from flows.runners import NodeRunner, runner_of
from tasks.errors import RecipeError, WorkerDiedError
from tests.flows.conftest import read

RAY = {"runner": "ray"}
PLANNED: Any = SimpleNamespace(base=SimpleNamespace(digest="0"), candidates=(), rivals=())


def test_threads_share_the_devices_of_this_machine(content: dict[str, Any]):
    recipe = read(content | {"score": {"devices": ["cpu:0"]}})
    with runner_of(recipe, PLANNED):
        (pool,) = tasks.devices._pools.values()
        assert pool.devices == ("cpu:0",)
    assert not tasks.devices._pools


def test_ray_runs_only_the_tasks_of_a_flow(content: dict[str, Any]):
    with pytest.raises(RuntimeError, match="for the body of a flow"), runner_of(read(content | RAY), PLANNED):
        pass


def test_without_the_extra_a_recipe_for_ray_says_what_to_install(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(RecipeError, match=r"runner: ray needs .* pip install 'lm-cocktail-flows\[ray\]', here and on"):
        NodeRunner(read(content | RAY), PLANNED, ThreadPoolTaskRunner())


def test_who_merges_a_file_and_dies_is_told_of_memory_and_not_of_scoring(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    # Nothing is submitted, so that Ray need not be installed.
    monkeypatch.setattr("flows.runners._open_runner", lambda: None)
    runner = NodeRunner(read(content | RAY), PLANNED, ThreadPoolTaskRunner())
    merging, scoring = runner._needs("merge shard", {}), runner._needs("score", {})
    assert merging is not None and scoring is not None and runner._needs("plan", {}) is None
    assert "start Ray on the nodes with fewer CPUs" in str(error_of_dying(merging))
    assert "score." not in merging.if_there_is_none + merging.if_it_dies
    assert "lower score.batch_tokens" in str(error_of_dying(scoring))


def error_of_dying(needs: Needs) -> Exception:
    """What is said of a task whose process has died as often as it was tried."""
    future = NodeFuture("task", lambda: SimpleNamespace(task_run_id=uuid4()), needs, [])
    for _ in range(MOST_ATTEMPTS):
        future._replace(RuntimeError("killed"))
    with pytest.raises(WorkerDiedError) as caught:
        future.result()
    return caught.value
