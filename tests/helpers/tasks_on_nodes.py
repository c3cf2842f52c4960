"""Tasks that tests/flows/test_ray.py sends to the nodes of a cluster; named `score`, as what goes there is named."""

import os
import time
from pathlib import Path
from typing import Any

from functions_on_worker import wait_for
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.cache import open_cache
from tasks.devices import call_on_device
from tasks.merge.shards import MergeRequest
from tasks.merge.task import merge_one_shard
from tasks.records import Checkpoint, ExampleSet, FileDigest, Score
from tasks.score.candidate import score_candidate
from tasks.score.task import score
from tasks.settings import CacheSettings, ScoreSettings


def where(device: str) -> tuple[str, str | None, str, int]:
    """The device as the process sees it, the GPUs that it sees, its node, and its id."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return device, os.environ.get("CUDA_VISIBLE_DEVICES"), node, os.getpid()


def beside_others(device: str, folder: str, name: str, n: int) -> tuple[str, str | None, str, int]:
    """`where`, when `n` calls with this folder run at the same time."""
    Path(folder, name).touch()
    end = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < n and time.monotonic() < end:
        time.sleep(0.05)
    return where(device)


def die_or_say(device: str, name: str) -> str:
    """Die as the kernel kills a process that takes too much memory, or hang, or say the name."""
    if name == "dies":
        os.kill(os.getpid(), 9)
    if name == "hangs":
        time.sleep(600)
    return name


@task(name="score", cache_policy=NO_CACHE)
def meet(name: str, folder: str, n: int) -> Any:
    """Where it runs, beside others."""
    return call_on_device("auto", beside_others, folder, name, n)


@task(name="score", cache_policy=NO_CACHE)
def say(name: str) -> str:
    """Its name, if it lives."""
    return call_on_device("auto", die_or_say, name, timeout_seconds=1.0)


@task(name="score", cache_policy=NO_CACHE)
def score_when_told(
    candidate: Checkpoint, examples: ExampleSet, settings: ScoreSettings, cache: CacheSettings, folder: str
) -> Score:
    """A score, computed when the file `go` is there; each attempt leaves a file that says on which node."""
    note_attempt(Path(folder), candidate.name)
    return score_candidate(candidate, examples, "decoder", settings, open_cache(cache))


@task(name="score", cache_policy=NO_CACHE)
def score_of_night(
    candidate: Checkpoint, examples: ExampleSet, model_type: str, settings: ScoreSettings, cache: CacheSettings
) -> Score:
    """The pipeline's own task, when it is told to go on."""
    note_attempt(attempts_folder(cache), candidate.name)
    return score.fn(candidate, examples, model_type, settings, cache)


@task(name="merge shard", cache_policy=NO_CACHE)
def merge_shard_of_night(request: MergeRequest, path: str, place: str, cache: CacheSettings) -> FileDigest:
    """The pipeline's own task, when it is told to go on."""
    note_attempt(attempts_folder(cache), path)
    return merge_one_shard.fn(request, path, place, cache)


def attempts_folder(cache: CacheSettings) -> Path:
    """Where tasks of a night say that they have begun, and the test says `go`."""
    return Path(str(cache.folder), "attempts")


def note_attempt(folder: Path, name: str) -> None:
    """Leave a file that says on which node, and in which process, an attempt has begun; wait for the file `go`."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    draft = folder.with_name(f"{folder.name}.{name}.{node}")
    draft.write_text(str(os.getpid()))
    draft.rename(folder / f"{name}.{node}")
    wait_for(folder / "go", seconds=120)
