"""Merges against the floor: reading every input with `cat` and writing every output with `cp`.

    python -m tests.benchmarks.bench_merge          # 1.1 B parameters; 20 GB of disk and of page cache
    python -m tests.benchmarks.bench_merge --quick  # small, to see that it runs

Everything is timed in turns on the same warm files, so that a busy machine slows all of it. Inputs are what the method
needs: two candidates, and the base for methods on task vectors. Rows:

* stream: tensors are streamed into preallocated files; like the floor neither hashed nor brought to disk
* sha256: the same, and what was written is read again and hashed on the way, in order, by one thread at a time
* merge: the whole of `merge_checkpoints`, with sha256 of the output and fsync
* process: a Python process that does that, from its start to its end, and the most memory it held
* cocktail merge: the command, with its sampled health and its tables; neither imports torch, of which is told below

`--device cuda:0` adds rows of the methods that a GPU can compute. `--oracles FOLDER` adds mergekit and LM_Cocktail in
their own environments (`reference/README.md`), whole processes; LM_Cocktail writes twice the bytes, in float32.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tasks.checkpoint import SINGLE_FILE
from tasks.records import Checkpoint
from tests.benchmarks.checkpoints import describe, near, write_checkpoint
from tests.benchmarks.merge_cases import CASES, REFERENCES, Case, cases_on, run_floor, run_merge, runner_of
from tests.benchmarks.processes import describe_machine, own_peak

RESULTS = Path(__file__).with_name("RESULTS.md")
_MEBIBYTE = 2**20
_CHUNK_BYTES = 2**20


def measure(run: Callable[[Path], int | None], output: Path) -> tuple[float, int | None]:
    """Seconds of one run, and what it returned; its output is removed afterwards."""
    started = time.perf_counter()
    found = run(output)
    seconds = time.perf_counter() - started
    shutil.rmtree(output)
    return seconds, found


def measure_in_turns(
    cases: Sequence[Case], checkpoints: Sequence[Checkpoint], folder: Path, repeats: int, oracles: Path | None
) -> list[str]:
    """Lines of the table: medians of all cases and of their floors."""
    runs: dict[object, Callable[[Path], int | None]] = {}
    runs.update({case.floor: partial(run_floor, *case.floor, checkpoints) for case in cases})
    runs.update({case: partial(runner_of(case, oracles), case, checkpoints) for case in cases})
    seconds: dict[object, list[float]] = {key: [] for key in runs}
    peak: dict[object, int] = {}
    # The first round warms the page cache, compiles kernels, and is not counted.
    for number in range(repeats + 1):
        # Other packages need so much memory that files leave the page cache, where the floor and all of us want them.
        inputs = [str(each.folder / SINGLE_FILE) for each in checkpoints]
        subprocess.run(["cat", *inputs], stdout=subprocess.DEVNULL, check=True)
        for key, run in runs.items():
            elapsed, memory = measure(run, folder / "output")
            if number:
                seconds[key].append(elapsed)
            if memory:
                peak[key] = max(memory, peak.get(key, 0))
    lines = ["| merge | seconds | floor | ratio | slowest | goal | peak memory |", "|---|---|---|---|---|---|---|"]
    for case in cases:
        median, floor = statistics.median(seconds[case]), statistics.median(seconds[case.floor])
        memory = f"{peak[case] / _MEBIBYTE:.0f} MiB" if case in peak else ""
        lines.append(
            f"| {case.name} | {median:.2f} | {floor:.2f} | {median / floor:.2f}x | {max(seconds[case]):.2f} "
            f"| {case.goal} | {memory} |"
        )
    return lines


def describe_hashing(checkpoint: Checkpoint, repeats: int) -> str:
    """What hashing alone takes: a model's file, as warm as the outputs are, in one thread."""
    seconds: list[float] = []
    for _ in range(repeats):
        started, digest = time.perf_counter(), hashlib.sha256()
        with (checkpoint.folder / SINGLE_FILE).open("rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return (
        f"sha256 of one output alone, in one thread: {median:.2f} s, {checkpoint.size / median / 1e9:.2f} GB/s. "
        "No row with sha256 can be faster."
    )


def describe_import(repeats: int) -> str:
    """What a process would take to start if it could not do without torch."""
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds.append(time.perf_counter() - started)
    return f"A process that imports torch, which these do not, and ends: {statistics.median(seconds):.2f} s."


def run_cocktail(recipe: Path, output: Path) -> None:
    """The command in this process, as at a terminal."""
    from flows.cli import cocktail

    command = ["merge", str(recipe), "--output", str(output), "--cache", str(recipe.with_name("cache"))]
    with contextlib.redirect_stdout(sys.stderr):
        cocktail(command, standalone_mode=False)


def main() -> None:
    """Measure in turns, print the table and write it down."""
    parser = argparse.ArgumentParser(description="Merges against cat and cp.")
    parser.add_argument("--megabytes", type=int, default=2200, help="size of one candidate")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--folder", type=Path, help="where the files go; left out: the folder for temporary files")
    parser.add_argument("--only", default="", help="only rows whose name begins so")
    parser.add_argument("--quick", action="store_true", help="200 MB, 2 runs, nothing written to RESULTS.md")
    parser.add_argument("--device", help="cuda:0 or another GPU, measured in rows of its own")
    parser.add_argument("--oracles", type=Path, help="folder of environments, see reference/README.md")
    parser.add_argument("--process", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--command", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.command:
        run_cocktail(*arguments.command)
        json.dump({"peak_kib": own_peak()}, sys.stdout)
        return
    if arguments.process:
        name, *folders, output = arguments.process
        (case,) = (each for each in CASES if each.name == name)
        run_merge(case, [describe(Path(folder)) for folder in folders], Path(output))
        json.dump({"peak_kib": own_peak()}, sys.stdout)
        return
    megabytes, repeats = (200, 2) if arguments.quick else (arguments.megabytes, arguments.repeats)
    on_device = cases_on(arguments.device) if arguments.device else []
    beside = REFERENCES if arguments.oracles else ()
    cases = [case for case in (*CASES, *beside, *on_device) if case.name.startswith(arguments.only)]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-merge-") as temporary:
        folder = Path(temporary)
        n_models = max(case.floor[0] for case in cases)
        checkpoints = [write_checkpoint(folder / f"model-{i}", near(megabytes), i) for i in range(n_models)]
        table = measure_in_turns(cases, checkpoints, folder, repeats, arguments.oracles)
        alone = [describe_hashing(checkpoints[0], repeats), describe_import(repeats)]
    size = checkpoints[0].size / 1e6
    title = f"Models of {size:.0f} MB in bfloat16, medians of {repeats}. {describe_machine()}."
    text = "\n".join([title, "", *table, "", *alone, ""])
    sys.stdout.write(text)
    if not (arguments.quick or arguments.only):
        # Without the folders, which are of this machine only.
        shown = [f"--megabytes {arguments.megabytes}", f"--repeats {arguments.repeats}"]
        shown += ["--oracles FOLDER"] if arguments.oracles else []
        command = " ".join(["python -m tests.benchmarks.bench_merge", *shown])
        RESULTS.write_text(f"# Merges against cat and cp\n\n`{command}`\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
