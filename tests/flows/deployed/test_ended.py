"""A run that is cancelled leaves nothing behind; one that is killed goes on, when it is retried, where it was."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from prefect_site import Site, command_of, descendants_of, is_running, parent_of, wait_for

from tasks.workers.leases import take_lease
from tests.flows.conftest import DEMO
from tests.flows.deployed.conftest import Deploy

DEPLOYMENT = "ended"
EXAMPLES = (DEMO / "data/examples/clinc.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


def device_workers(process: int) -> list[int]:
    return [each for each in descendants_of(process) if "tasks.workers.main" in command_of(each)]


def test_a_run_that_is_cancelled_while_it_scores_leaves_nothing_behind(
    site: Site, deploy: Deploy, small: dict[str, Any], releases: Path, tmp_path: Path
):
    # More than is scored before the worker hears of it.
    examples = tmp_path / "many.jsonl"
    examples.write_text("".join(EXAMPLES * 40), encoding="utf-8")
    name = deploy(small, DEPLOYMENT)
    run = site.start(name, {"recipe": small | {"examples": str(examples)}}).raise_for_status().json()["id"]
    process = site.process_of(run)
    workers = wait_for(lambda: device_workers(process), "a candidate to be scored")
    started = descendants_of(process)
    site.set_state(run, "CANCELLING")
    assert site.end_of(run)["type"] == "CANCELLED"
    wait_for(lambda: not any(map(is_running, {*started, *workers})), "the processes of the run to end")
    locks = list((site.folder / "tmp").glob("lm-cocktail-flows-*/*.lock"))
    assert locks
    for lock in locks:
        descriptor = take_lease(lock)
        assert descriptor is not None, f"{lock} is still held"
        os.close(descriptor)
    assert not releases.exists()
    # No turn is taken either: the next run of this deployment, in the next test, waits for nothing.


def test_a_killed_run_is_retried_without_doing_again_what_was_done(
    site: Site, deploy: Deploy, small: dict[str, Any], releases: Path, tmp_path: Path
):
    # Examples that no other test scores, and a shard for nearly every tensor.
    examples = tmp_path / "few.jsonl"
    examples.write_text("".join(EXAMPLES[:32]), encoding="utf-8")
    recipe = small | {"examples": str(examples), "merge": {"max_shard_size": "50KB"}}
    run = site.start(deploy(recipe, DEPLOYMENT), {}).raise_for_status().json()["id"]
    process = site.process_of(run)
    worker = parent_of(process)
    wait_for(lambda: finished_shards(site) >= 2, "two shards", 0.002)
    os.kill(process, signal.SIGKILL)
    state = site.end_of(run)
    assert (state["type"], "SIGKILL" in state["message"]) == ("CRASHED", True)
    assert not (releases / "aliases").exists()
    # What the retry's merge goes on with; that it does so, tests/merge/ proves.
    assert len(list(site.cache.rglob("model-*-of-*.safetensors"))) >= 2

    # After the crash the worker looks for hooks, in a process; only then it lets go of the run. A retry that it starts
    # before is told to have crashed, too, and loses its turn.
    wait_for(lambda: has_settled(worker), "the worker to be done with the crash")
    site.set_state(run, "SCHEDULED", "AwaitingRetry")
    wait_for(lambda: site.state(run)["type"] == "RUNNING", "the retry")
    assert site.completed(run)["message"].startswith("released ")
    assert site.get(f"/flow_runs/{run}")["run_count"] == 2
    assert cached_scores(site, run) == [[False] * 3, [True] * 3]
    assert len(list(releases.glob("versions/*/manifest.json"))) == 1
    assert list(releases.rglob(".staging-*")) == []
    assert list(site.cache.rglob("journal.jsonl")) == []


def has_settled(worker: int) -> bool:
    """Whether a worker has no process, and has none a moment later."""
    if descendants_of(worker) != [worker]:
        return False
    time.sleep(1)
    return descendants_of(worker) == [worker]


def finished_shards(site: Site) -> int:
    """Lines of the merge's journal; the first holds its key."""
    lines = sum(file.read_bytes().count(b"\n") for file in site.cache.rglob("journal.jsonl"))
    return max(0, lines - 1)


def cached_scores(site: Site, run: str) -> list[list[bool]]:
    """Of each attempt, whether the candidates' losses came from the cache."""
    shown = [each["data"] for each in site.artifacts(run) if each["key"] == "assistant-weights"]
    return [[row["cached"] for row in (json.loads(table) if isinstance(table, str) else table)] for table in shown]
