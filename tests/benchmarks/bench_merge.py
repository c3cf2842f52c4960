"""Merges against the floor: reading every input with `cat` and writing every output with `cp`.

    python -m tests.benchmarks.bench_merge          # 1.1 B parameters; 20 GB of disk and of page cache
    python -m tests.benchmarks.bench_merge --quick  # small, to see that it runs

Everything is timed in turns on the same warm files, so that a busy machine slows all of it. Inputs are what the method
needs: two candidates, and the base for methods on task vectors. Rows:

* stream: tensors are streamed into preallocated files; like the floor neither hashed nor brought to disk
* merge: the whole of `merge_checkpoints`, with sha256 of the output and fsync
* process: a Python process that does that, from its start to its end, and the most memory it held

`--device cuda:0` adds rows of the methods that a GPU can compute.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tasks.checkpoint import SINGLE_FILE, describe_folder, read_tensor_views
from tasks.depth import depth_of
from tasks.digests import hash_file
from tasks.merge.device import place_on
from tasks.merge.inputs import choose, formula_maker
from tasks.merge.job import Job, Output, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.merge import merge_checkpoints
from tasks.merge.ranges import preallocate
from tasks.merge.sources import FileSource
from tasks.merge.stream import stream_tensors
from tasks.records import Checkpoint, FileDigest
from tasks.tensors import TensorView

RESULTS = Path(__file__).with_name("RESULTS.md")
_HIDDEN, _INTERMEDIATE = 2048, 5632
_LAYER = {"q": _HIDDEN, "k": _HIDDEN, "v": _HIDDEN, "o": _HIDDEN, "gate": _INTERMEDIATE, "up": _INTERMEDIATE}
_MAX_SHARD_BYTES = 5 * 10**9
_MEBIBYTE = 2**20
_OWN: Mapping[str, Mapping[str, float]] = {method: {"density": 0.3} for method in ("ties", "dare_ties", "della")}
"""Parameters of every candidate, where the defaults would leave a method nothing to do."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    method: str
    kind: str
    """stream, merge or process."""
    device: str | None = None
    """Of the stream; None for the processor."""
    n_candidates: int = 2
    n_outputs: int = 1
    goal: str = ""
    """From the floor."""

    @property
    def floor(self) -> tuple[int, int]:
        """Inputs read and outputs written."""
        return self.n_candidates + self.reads_base, self.n_outputs

    @property
    def reads_base(self) -> bool:
        """Whether the base is an input beside the candidates; else it is the first of them."""
        return self.method not in ("linear", "slerp")


CASES = (
    Case("linear, N=2", "linear", "stream", goal="<= 0.9x"),
    Case("linear, N=4", "linear", "stream", n_candidates=4, goal="<= 0.9x"),
    Case("linear, N=2, sha256 and fsync", "linear", "merge", goal="<= 1.4x without fsync"),
    Case("linear, N=2, whole process", "linear", "process", goal="merge + 1.8 s, 300 MiB"),
    Case("slerp", "slerp", "stream", goal="<= 1.5x"),
    Case("task_arithmetic", "task_arithmetic", "stream", goal="<= 1.0x"),
    Case("ties", "ties", "stream", goal="<= 3x"),
    Case("dare_ties", "dare_ties", "stream", goal="<= 3x"),
    Case("della", "della", "stream", goal="<= 4x"),
    Case("ties, whole process", "ties", "process", goal="300 MiB"),
    Case("linear, 5 merges in one read", "linear", "stream", n_outputs=5, goal="<= 1.2x"),
)


def cases_on(device: str) -> list[Case]:
    """The same merges on a GPU."""
    return [
        Case(f"linear, N=2, on {device}", "linear", "stream", device=device),
        Case(f"linear, N=4, on {device}", "linear", "stream", n_candidates=4, device=device),
        Case(f"task_arithmetic, on {device}", "task_arithmetic", "stream", device=device),
        Case(f"linear, 5 merges in one read, on {device}", "linear", "stream", n_outputs=5, device=device),
    ]


def write_checkpoint(folder: Path, megabytes: int, seed: int) -> Checkpoint:
    """A bfloat16 checkpoint of decoder-like matrices, near the asked size; all seeds are fine-tunes of seed 0."""
    shapes = {name: (rows, _HIDDEN) for name, rows in _LAYER.items()}
    layer_bytes = 2 * sum(rows * columns for rows, columns in shapes.values())
    n_layers = max(1, round(megabytes * 1e6 / layer_bytes))
    views = {
        name: TensorView(name, "BF16", shape, Path(SINGLE_FILE), 0)
        for layer in range(n_layers)
        for name, shape in ((f"layers.{layer}.{part}.weight", shape) for part, shape in shapes.items())
    }
    (file,) = plan_layout(views, "base", 10**15).files
    numbers = _draw(0, 0.02)
    if seed:
        numbers += _draw(seed, 0.001)
    content = numbers.bfloat16().view(torch.int16).numpy()
    folder.mkdir()
    with (folder / SINGLE_FILE).open("wb") as stream:
        stream.write(file.header)
        for tensor in file.tensors:
            stream.write(content[: tensor.n_elements].tobytes())
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    return _describe(folder)


def _describe(folder: Path) -> Checkpoint:
    # Of the weights only the size is needed here; hashing them would take longer than the benchmark.
    size = (folder / SINGLE_FILE).stat().st_size
    files = {"config.json": hash_file(folder / "config.json"), SINGLE_FILE: FileDigest("0" * 64, size)}
    return describe_folder(folder.name, str(folder), folder, files)


def _draw(seed: int, deviation: float) -> torch.Tensor:
    return torch.randn(_INTERMEDIATE * _HIDDEN, generator=torch.Generator().manual_seed(seed)).mul_(deviation)


def run_floor(n_inputs: int, n_outputs: int, checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """Move the bytes: every input through `cat`, one of them to every output with `cp`."""
    inputs = [str(each.folder / SINGLE_FILE) for each in checkpoints[:n_inputs]]
    subprocess.run(["cat", *inputs], stdout=subprocess.DEVNULL, check=True)
    output.mkdir()
    for number in range(n_outputs):
        subprocess.run(["cp", inputs[0], str(output / str(number))], check=True)


def run_stream(case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """Stream all tensors into preallocated files, without hashing and fsync."""
    base, candidates = checkpoints[0], checkpoints[case.reads_base : case.floor[0]]
    names = [each.name for each in candidates]
    sources = [FileSource(each.name, read_tensor_views(each.folder)) for each in (base, *candidates)]
    (file,) = plan_layout(sources[0].tensors, "base", 10**15).files
    depths = depth_of(sources[0].tensors)
    own = {name: _OWN.get(case.method, {}) for name in names}
    choices = [
        choose(case.method, names, _weights(names, number), {}, own, None, 0) for number in range(case.n_outputs)
    ]
    made = [Output(output / str(number), formula_maker(choice, depths)) for number, choice in enumerate(choices)]
    for each in made:
        each.folder.mkdir(parents=True)
        preallocate(each.folder / file.path, file.size)
    job = Job(sources[0], sources[1:], made, reads_base=choices[0].reads_base)
    if case.device:
        job = place_on(case.device, job, file.tensors)
    stream_tensors(job, plan_parts(job, file.tensors), lambda *_: None)


def run_merge(case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """The whole step."""
    base, candidates = checkpoints[0], checkpoints[case.reads_base : case.floor[0]]
    names = [each.name for each in candidates]
    merge_checkpoints(
        base, candidates, _weights(names, 0), method=case.method,
        candidate_parameters={name: _OWN.get(case.method, {}) for name in names}, dtype="base",
        max_shard_bytes=_MAX_SHARD_BYTES, template=base, output=output,
    )  # fmt: skip


def _weights(names: Sequence[str], number: int) -> dict[str, float]:
    """Weights that sum to 1, others for every output."""
    shares = [1.0 + number * index for index in range(len(names))]
    return {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}


def run_process(case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> int:
    """The same in a process of its own.

    Returns:
        The most memory that it held, in bytes.
    """
    folders = [str(each.folder) for each in checkpoints]
    command = [sys.executable, __file__, "--process", case.name, *folders, str(output)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return 1024 * int(found.stdout)


def _own_peak() -> str:
    """The most memory this process held, in KiB; what `getrusage` says may be that of the process it was made by."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in status if line.startswith("VmHWM:"))


_RUN: Mapping[str, Callable[[Case, Sequence[Checkpoint], Path], int | None]] = {
    "stream": run_stream,
    "merge": run_merge,
    "process": run_process,
}


def measure(run: Callable[[Path], int | None], output: Path) -> tuple[float, int | None]:
    """Seconds of one run, and what it returned; its output is removed afterwards."""
    started = time.perf_counter()
    found = run(output)
    seconds = time.perf_counter() - started
    shutil.rmtree(output)
    return seconds, found


def measure_in_turns(cases: Sequence[Case], checkpoints: Sequence[Checkpoint], folder: Path, repeats: int) -> list[str]:
    """Lines of the table: medians of all cases and of their floors."""
    runs: dict[object, Callable[[Path], int | None]] = {}
    runs.update({case.floor: partial(run_floor, *case.floor, checkpoints) for case in cases})
    runs.update({case: partial(_RUN[case.kind], case, checkpoints) for case in cases})
    seconds: dict[object, list[float]] = {key: [] for key in runs}
    peak: dict[object, int] = {}
    # The first round warms the page cache, compiles kernels, and is not counted.
    for number in range(repeats + 1):
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


def describe_machine() -> str:
    """Processor, cores and versions."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    """Measure in turns, print the table and write it down."""
    parser = argparse.ArgumentParser(description="Merges against cat and cp.")
    parser.add_argument("--megabytes", type=int, default=2200, help="size of one candidate")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--folder", type=Path, help="where the files go; left out: the folder for temporary files")
    parser.add_argument("--only", default="", help="only rows whose name begins so")
    parser.add_argument("--quick", action="store_true", help="200 MB, 2 runs, nothing written to RESULTS.md")
    parser.add_argument("--device", help="cuda:0 or another GPU, measured in rows of its own")
    parser.add_argument("--process", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        name, *folders, output = arguments.process
        (case,) = (each for each in CASES if each.name == name)
        run_merge(case, [_describe(Path(folder)) for folder in folders], Path(output))
        sys.stdout.write(_own_peak())
        return
    megabytes, repeats = (200, 2) if arguments.quick else (arguments.megabytes, arguments.repeats)
    on_device = cases_on(arguments.device) if arguments.device else []
    cases = [case for case in (*CASES, *on_device) if case.name.startswith(arguments.only)]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-merge-") as temporary:
        folder = Path(temporary)
        n_models = max(case.floor[0] for case in cases)
        checkpoints = [write_checkpoint(folder / f"model-{i}", megabytes, i) for i in range(n_models)]
        table = measure_in_turns(cases, checkpoints, folder, repeats)
    size = checkpoints[0].size / 1e6
    title = f"Models of {size:.0f} MB in bfloat16, medians of {repeats}. {describe_machine()}."
    text = "\n".join([title, "", *table, ""])
    sys.stdout.write(text)
    if not (arguments.quick or arguments.only):
        # Without the folder, which is of this machine only.
        shown = [f"--megabytes {arguments.megabytes}", f"--repeats {arguments.repeats}"]
        command = " ".join(["python -m tests.benchmarks.bench_merge", *shown])
        RESULTS.write_text(f"# Merges against cat and cp\n\n`{command}`\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
