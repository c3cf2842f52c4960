"""Scoring on a real Ray cluster of several nodes on this machine, with GPUs that are numbers only, and their death.

The numbers must be those that threads and worker processes of this machine compute.
"""

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import Task, flow, task, unmapped
from tasks_on_nodes import attempts_folder, meet, merge_shard_of_night, say, score_of_night, score_when_told

from flows.refresh import refresh
from flows.runners import runner_of
from tasks.cache import open_cache
from tasks.data.examples import describe_examples, read_rows
from tasks.errors import DeviceError, InputError, WorkerDiedError
from tasks.faces import outcomes
from tasks.plan.resolve import resolve_checkpoint
from tasks.recipe import Recipe
from tasks.records import Checkpoint
from tasks.registry.releases import open_registry
from tasks.score.candidate import score_candidate
from tasks.score.task import score
from tasks.settings import CacheSettings, ScoreSettings
from tests.flows.conftest import DEMO, read

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("prefect_server"),
    # Ray's own processes and sockets are closed when its driver is, not when Python looks.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

TESTS = Path(__file__).parents[1]
IMPORTED = [str(TESTS.parent), str(TESTS / "helpers")]
CPU = ScoreSettings(devices=["cpu:0"])
NAMES = ("base", "clinc", "wordnet")


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    """A head node without work and one node with two CPUs and two GPUs; RAY_ADDRESS names it."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # As installed on a node: what the tasks of these tests are defined in.
        patch.setenv("PYTHONPATH", os.pathsep.join([*IMPORTED, os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.add_node(num_cpus=2, num_gpus=2)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def second_node(cluster: Any) -> Generator[Any]:
    """One more node, with one GPU; a test may kill it."""
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


@pytest.fixture
def models(tmp_path: Path) -> list[Checkpoint]:
    cache = open_cache(CacheSettings(folder=str(tmp_path / "plans")))
    return [resolve_checkpoint(name, str(DEMO / "models/decoder" / name), None, cache) for name in NAMES]


@pytest.fixture
def by_threads(models: list[Checkpoint], tmp_path: Path) -> list[tuple[float, ...]]:
    """The losses of every model, from worker processes of this machine."""
    cache = open_cache(CacheSettings(folder=str(tmp_path / "of this machine")))
    return [score_candidate(model, EXAMPLES, "decoder", CPU, cache).losses for model in models]


def on_ray(content: dict[str, Any], mapped: Task[Any, Any], *arguments: Any, **settings: Any) -> list[Any]:
    """The outcomes of a mapped task in a flow whose recipe says `runner: ray`."""
    recipe, found = read(content | {"runner": "ray"} | settings), list[Any]()
    night(recipe, mapped, arguments, found)
    return found


def night(recipe: Recipe, mapped: Task[Any, Any], arguments: tuple[Any, ...], found: list[Any]) -> None:
    @flow(name="refresh", persist_result=True, result_serializer="json")
    def scoring() -> None:
        with runner_of(recipe, NOTHING_PLANNED):
            found.extend(outcomes(mapped.map(*arguments)))

    scoring()


def test_each_task_has_a_gpu_of_its_own_on_any_node(content: dict[str, Any], second_node: Any, tmp_path: Path):
    found = good(on_ray(content, meet, ["0", "1", "2"], unmapped(str(tmp_path)), unmapped(3)))
    assert [device for device, *_ in found] == ["cuda:0"] * 3
    by_node: dict[str, set[str]] = {}
    for _, numbers, node, _ in found:
        by_node.setdefault(node, set()).add(numbers)
    assert sorted(by_node.values(), key=len) == [{"0"}, {"0", "1"}]


def test_a_process_with_a_gpu_serves_one_task_and_one_without_is_used_again(
    content: dict[str, Any], cluster: Any, tmp_path: Path
):
    several = ["0", "1", "2", "3", "4", "5"], unmapped(str(tmp_path)), unmapped(1)
    with_gpus = good(on_ray(content, meet, *several, score={"devices": ["cuda:0"]}))
    assert len({process for *_, process in with_gpus}) == 6
    without = good(on_ray(content, meet, *several, score={"devices": ["cpu:0"]}))
    assert {device for device, *_ in without} == {"cpu"}
    assert len({process for *_, process in without}) < 6


def test_scores_are_those_of_this_machine(
    content: dict[str, Any], second_node: Any, models: list[Checkpoint], by_threads: list[Any], tmp_path: Path
):
    cache = CacheSettings(folder=str(tmp_path / "shared"))
    common = unmapped(EXAMPLES), unmapped("decoder"), unmapped(CPU), unmapped(cache)
    found = good(on_ray(content, score, models, *common, score={"devices": ["cpu:0"]}))
    assert [each.candidate for each in found] == list(NAMES)
    assert [each.losses for each in found] == by_threads
    again = good(on_ray(content, score, models, *common, score={"devices": ["cpu:0"]}))
    assert [(each.losses, each.cached) for each in again] == [(losses, True) for losses in by_threads]


def test_when_a_node_dies_its_scores_are_computed_on_another(
    content: dict[str, Any], cluster: Any, second_node: Any, models: list[Checkpoint], by_threads: list[Any],
    tmp_path: Path,
):  # fmt: skip
    folder = tmp_path / "attempts"
    folder.mkdir()
    killer = threading.Thread(target=kill_when_busy, args=(cluster, second_node, folder))
    killer.start()
    cache = CacheSettings(folder=str(tmp_path / "shared"))
    common = unmapped(EXAMPLES), unmapped(CPU), unmapped(cache), unmapped(str(folder))
    found = good(on_ray(content, score_when_told, models, *common, score={"devices": ["cpu:0"]}))
    killer.join()
    assert [each.losses for each in found] == by_threads
    attempts = sorted(path.name.partition(".")[0] for path in folder.iterdir() if path.name != "go")
    # Those on the dead node, of which there is at least one, ran on the other, too.
    assert set(attempts) == set(NAMES) and len(attempts) > len(NAMES)


@pytest.mark.parametrize(("step", "n_at_once"), [("score", 3), ("merge shard", 2)])
def test_a_whole_night_survives_the_death_of_a_node(
    content: dict[str, Any], cluster: Any, second_node: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, step: str, n_at_once: int,
):  # fmt: skip
    """The node dies while it scores or merges; the release has the bytes that this machine makes alone."""
    merge = {"max_shard_size": "300KB"}
    alone = read(content | {"merge": merge, "publish": {"to": [str(tmp_path / "alone")]}})
    expected = refresh(alone, cache=CacheSettings(folder=str(tmp_path / "of this machine")))
    place, replacement = {
        "score": ("flows.refresh.score", score_of_night),
        "merge shard": ("flows.split_merge.merge_one_shard", merge_shard_of_night),
    }[step]
    monkeypatch.setattr(place, replacement)
    cache = CacheSettings(folder=str(tmp_path / "shared"))
    attempts = attempts_folder(cache)
    attempts.mkdir(parents=True)
    killer = threading.Thread(target=kill_when_busy, args=(cluster, second_node, attempts, n_at_once))
    killer.start()
    recipe = read(content | {"runner": "ray", "score": {"devices": ["cpu:0"]}, "merge": merge | {"split": True}})
    result = refresh(recipe, cache=cache)
    killer.join()
    assert f"{step}: its process or node died" in caplog.text
    assert (result["status"], result["losses"]) == ("published", expected["losses"])
    ours, theirs = (
        open_registry(place, recipe.name).read_manifest(night["version"])["files"]
        for place, night in ((str(tmp_path / "releases"), result), (str(tmp_path / "alone"), expected))
    )
    weights = {path: file for path, file in theirs.items() if path.endswith(".safetensors")}
    assert len(weights) > 3
    assert {path: ours[path] for path in weights} == weights


def test_a_task_that_always_dies_is_tried_three_times_and_harms_no_other(content: dict[str, Any], cluster: Any):
    found = on_ray(content, say, ["lives", "dies", "hangs"], score={"devices": ["cpu:0"]})
    assert found[0] == "lives"
    for error in found[1:]:
        assert isinstance(error, WorkerDiedError)
        assert "its process on the cluster died 3 times" in str(error) and "raise score.timeout_seconds" in str(error)


def test_what_no_node_can_take_is_not_waited_for_for_ever(
    content: dict[str, Any], cluster: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flows.node_futures._PATIENCE_SECONDS", 2.0)
    (error,) = on_ray(content, say, ["lives"], score={"devices": ["cuda:0+cuda:1+cuda:2"]})
    assert isinstance(error, DeviceError)
    assert "score: for 2 s no node of the Ray cluster has had 1 CPU and 3 GPUs; start such a node" in str(error)


def test_a_failed_download_leaves_the_other_candidates_alone(content: dict[str, Any], cluster: Any):
    @task(name="download")
    def download(name: str) -> str:
        if name == "gone":
            raise InputError("gone: is not there")
        return name

    recipe, found = read(content | {"runner": "ray", "score": {"devices": ["cpu:0"]}}), list[Any]()

    @flow
    def downloading() -> None:
        with runner_of(recipe, NOTHING_PLANNED):
            found.extend(outcomes(say.map(download.map(["here", "gone"]))))

    downloading()
    assert found[0] == "here"
    assert isinstance(found[1], InputError) and str(found[1]) == "gone: is not there"


def test_a_cluster_that_is_not_there_is_named(content: dict[str, Any], cluster: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(DeviceError, match=r"the cluster 127.0.0.1:9 cannot be used: .*RAY_ADDRESS says where it is"):
        on_ray(content, say, ["lives"])


def good(outcomes: list[Any]) -> list[Any]:
    """The outcomes, if none is an error."""
    for each in outcomes:
        if isinstance(each, BaseException):
            raise each
    return outcomes


def kill_when_busy(cluster: Any, node: Any, folder: Path, n_attempts: int = 3) -> None:
    """Kill a node, not gently, once so many attempts have begun; then let the work be done."""
    end = time.monotonic() + 120
    while len(list(folder.iterdir())) < n_attempts and time.monotonic() < end:
        time.sleep(0.05)
    lost = node.node_id
    cluster.remove_node(node, allow_graceful=False)
    # Its processes die with it, and do not end their work first.
    for attempt in folder.glob(f"*.{lost}"):
        with suppress(ProcessLookupError):
            os.kill(int(attempt.read_text()), signal.SIGKILL)
    (folder / "go").touch()


NOTHING_PLANNED: Any = SimpleNamespace(base=SimpleNamespace(digest=""), candidates=(), rivals=())
ROWS = DEMO / "data/examples/clinc.jsonl"
EXAMPLES = describe_examples(ROWS, read_rows(ROWS, "decoder"))
