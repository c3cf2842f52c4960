"""What Prefect costs: a refresh of ten tiny models against a plain loop of the same functions.

    python -m tests.benchmarks.bench_overhead          # a minute per round
    python -m tests.benchmarks.bench_overhead --quick  # one round, to see that it runs

Each in a process of its own from its start to its end, with an empty cache and destination, in turns:

* plain: a Python loop over the pure functions of `tasks/`, as `flows/direct.py` calls them; no Prefect is imported
* server: `cocktail refresh` on a Prefect server that runs
* ephemeral: `cocktail refresh` without one, which starts a temporary server

All three start the same worker processes and compute the same losses and evaluations on them, so that what is left is
the flow. Below are the seconds of each step as the manifest has them; start and end are what is outside of the steps:
imports, the command's own check of the recipe, the server, states and results.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.benchmarks.processes import ONE_THREAD, describe_machine

RESULTS = Path(__file__).with_name("OVERHEAD.md")
DEMO = Path(__file__).parents[2] / "deployments" / "demo"
N_CANDIDATES = 10
N_ROWS = 20
_PATIENCE_SECONDS = 90
_GOALS = {"server": "<= 5 s", "ephemeral": "<= 20 s"}


def write_recipe(folder: Path) -> Path:
    """The demo's base, ten near copies of it, and few rows."""
    base, weights = DEMO / "models" / "decoder" / "base", "model.safetensors"
    tensors = load_file(base / weights)
    for number in range(N_CANDIDATES):
        draw = torch.Generator().manual_seed(number)
        other = shutil.copytree(base, folder / f"expert{number}")
        changed = {
            name: (tensor + 0.001 * torch.randn(tensor.shape, generator=draw)).to(tensor.dtype)
            for name, tensor in tensors.items()
        }
        save_file(changed, other / weights, metadata={"format": "pt"})
    for task in ("clinc", "wordnet"):
        rows = (DEMO / "data" / "evaluation" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        (folder / f"{task}.jsonl").write_text("\n".join(rows[:N_ROWS]) + "\n", encoding="utf-8")
        (folder / f"{task}-examples.jsonl").write_text("\n".join(rows[-N_ROWS:]) + "\n", encoding="utf-8")
    recipe = {
        "name": "overhead",
        "model_type": "decoder",
        "base": str(base),
        "candidates": [
            {"name": f"expert{number}", "model": str(folder / f"expert{number}")} for number in range(N_CANDIDATES)
        ],
        "examples": str(folder / "clinc-examples.jsonl"),
        "score": {"devices": ["cpu:0", "cpu:1"]},
        "weigh": {"strategy": "loss", "temperature": 1.0},
        "evaluate": [
            {"name": task, "kind": "classification", "data": str(folder / f"{task}.jsonl")}
            for task in ("clinc", "wordnet")
        ],
        "gate": {"rules": [{"task": "clinc", "against": "base", "max_regression": 1.0}]},
        "publish": {"to": ["./releases"]},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run_plain(path: Path, cache_folder: Path) -> dict[str, float]:
    """All steps without Prefect; seconds of each."""
    from flows import direct
    from flows.recipe import read_recipe
    from flows.run import StepClock, report_of
    from tasks.cache import ResultCache
    from tasks.devices import open_devices
    from tasks.download.candidate import download_checkpoint
    from tasks.evaluate.sanity import check_model
    from tasks.gate.decide import decide
    from tasks.plan.plan import plan_refresh
    from tasks.publish.release import publish_release

    recipe, cache, clock = read_recipe(path, []), ResultCache(cache_folder), StepClock()
    if recipe.publish is None:
        raise ValueError("the recipe of this benchmark publishes")
    with clock.step("plan"):
        planned = plan_refresh(recipe, cache)
    with clock.step("download"):
        base = download_checkpoint(planned.base, cache)
        candidates = [download_checkpoint(candidate, cache) for candidate in planned.candidates]
    with clock.step("score"):
        planned, candidates, scores, weights = direct.score_candidates(recipe, planned, candidates, cache)
    with clock.step("merge"):
        output = cache_folder / "work" / "merged"
        merged = direct.merge_candidates(recipe, planned, candidates, weights, output, cache)
    with clock.step("evaluate"), open_devices(recipe.score.devices):
        sanity = check_model(merged.checkpoint, base, recipe.model_type, recipe.score, cache)
        models = [merged.checkpoint, base, *candidates]
        evaluations = direct.evaluate_models(recipe, planned.evaluation_data, models, cache)
    with clock.step("gate"):
        decision = decide(recipe.gate.rules, evaluations, [each.name for each in candidates], sanity)
    report = report_of(recipe, planned, scores, weights, merged, evaluations, decision, clock.seconds, sanity)
    with clock.step("publish"):
        publish_release(report, recipe.publish, now=datetime.now(UTC), by="benchmark", cache=cache)
    return clock.seconds


def measure(kind: str, recipe: Path, home: Path, api: str) -> dict[str, float]:
    """Seconds of one run's steps, of its start and end, and of all of it."""
    # Of the recipe's folder, to which relative places are resolved; nothing of an earlier run may be known.
    shutil.rmtree(recipe.parent / "releases", ignore_errors=True)
    cpu_before = _cpu_seconds()
    with tempfile.TemporaryDirectory(dir=recipe.parent) as cache:
        commands = {
            "plain": [sys.executable, "-m", "tests.benchmarks.bench_overhead", "--plain", str(recipe), cache],
            "server": _refresh(recipe, cache),
            "ephemeral": _refresh(recipe, cache),
        }
        environment = prefect_environment(home, api if kind == "server" else None)
        started = time.perf_counter()
        found = subprocess.run(commands[kind], capture_output=True, text=True, env=environment)
        total = time.perf_counter() - started
    if found.returncode:
        sys.stderr.write(found.stderr)
        found.check_returncode()
    printed: dict[str, Any] = json.loads(found.stdout)
    if printed["status"] != "published":
        raise ValueError(f"{kind}: expected a release, found {printed['status']}: {printed.get('message')}")
    seconds = dict(printed["seconds"])
    # The plain commands weigh with the workers that scored, in one call.
    seconds["score and weigh"] = seconds.pop("score") + seconds.pop("weigh", 0.0)
    return {"start and end": total - sum(seconds.values()), **seconds, "all": total, "CPU": _cpu_seconds() - cpu_before}


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _refresh(recipe: Path, cache: str) -> list[str]:
    command = "from flows.cli import main; main()"
    return [sys.executable, "-c", command, "refresh", str(recipe), "--json", "--cache", cache]


def prefect_environment(home: Path, api: str | None) -> dict[str, str]:
    """This process's, without any Prefect settings but those of a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    settings = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**kept, **settings, **ONE_THREAD, **({"PREFECT_API_URL": api} if api else {}), "PYTHONPATH": paths}


@contextmanager
def running_server(folder: Path) -> Generator[str]:
    """A Prefect server of its own on loopback; its address."""
    import httpx

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    api = f"http://127.0.0.1:{port}/api"
    environment = prefect_environment(folder / "server", api)
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(httpx, api):
            if server.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"Prefect's server did not start: {(folder / 'server.log').read_text()}")
            time.sleep(0.2)
        yield api
    finally:
        server.terminate()
        server.wait(_PATIENCE_SECONDS)


def _answers(httpx: Any, api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").is_success
    except httpx.TransportError:
        return False


def summarise(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Both tables: what the flow costs, and in which steps."""
    steps = list(found["plain"][0])
    median = {
        kind: {step: statistics.median(run[step] for run in runs) for step in steps} for kind, runs in found.items()
    }
    lines = ["| run | seconds | slowest | over the plain loop | goal | CPU seconds |", "|---|---|---|---|---|---|"]
    for kind, runs in found.items():
        total, slowest = median[kind]["all"], max(run["all"] for run in runs)
        over = "" if kind == "plain" else f"{total - median['plain']['all']:.1f} s"
        lines.append(
            f"| {kind} | {total:.1f} | {slowest:.1f} | {over} | {_GOALS.get(kind, '')} | {median[kind]['CPU']:.1f} |"
        )
    lines += ["", f"| seconds | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for step in steps[:-2]:
        lines.append(f"| {step} | {' | '.join(f'{median[kind][step]:.1f}' for kind in found)} |")
    return lines


def main() -> None:
    """Measure in turns, print the tables and write them down."""
    parser = argparse.ArgumentParser(description="What Prefect costs.")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--quick", action="store_true", help="one run of each, nothing written down")
    parser.add_argument("--plain", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        json.dump({"status": "published", "seconds": run_plain(*arguments.plain)}, sys.stdout)
        return
    repeats = 1 if arguments.quick else arguments.repeats
    found: dict[str, list[dict[str, float]]] = {"plain": [], "server": [], "ephemeral": []}
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as temporary:
        folder = Path(temporary)
        recipe = write_recipe(folder)
        with running_server(folder) as api:
            # The first round brings files into the page cache and makes databases; it is not counted.
            for number in range(0 if arguments.quick else -1, repeats):
                for kind, runs in found.items():
                    seconds = measure(kind, recipe, folder / "home", api)
                    runs += [seconds] if number >= 0 else []
    title = f"{N_CANDIDATES} candidates of 2 MB, medians of {repeats}. {describe_machine()}."
    text = "\n".join([title, "", *summarise(found), ""])
    sys.stdout.write(text)
    if not arguments.quick:
        command = f"python -m tests.benchmarks.bench_overhead --repeats {repeats}"
        RESULTS.write_text(f"# What Prefect costs\n\n`{command}`\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
