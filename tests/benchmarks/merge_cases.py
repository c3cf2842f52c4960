"""The rows of `bench_merge`: what is merged, and how each is run."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.checkpoint import SINGLE_FILE, read_tensor_views
from tasks.depth import depth_of
from tasks.merge.device import place_on
from tasks.merge.inputs import choose, formula_maker
from tasks.merge.job import Job, Output, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.merge import merge_checkpoints
from tasks.merge.ranges import OrderedHash, preallocate
from tasks.merge.sources import FileSource
from tasks.merge.stream import stream_tensors
from tasks.records import Checkpoint
from tests.benchmarks.processes import run_module, run_reference

_MAX_SHARD_BYTES = 5 * 10**9
_OWN: Mapping[str, Mapping[str, float]] = {method: {"density": 0.3} for method in ("ties", "dare_ties", "della")}
"""Parameters of every candidate, where the defaults would leave a method nothing to do."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    method: str
    kind: str
    """stream, hashed, merge, process, command, or the environment of a package to compare with."""
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
    Case("linear, N=2, sha256", "linear", "hashed", goal="<= 1.4x"),
    Case("linear, N=2, sha256 and fsync", "linear", "merge"),
    Case("linear, N=2, process", "linear", "process", goal="300 MiB"),
    Case("linear, N=2, cocktail merge", "linear", "command", goal="merge + 1.8 s, 300 MiB"),
    Case("slerp", "slerp", "stream", goal="<= 1.5x"),
    Case("task_arithmetic", "task_arithmetic", "stream", goal="<= 1.0x"),
    Case("ties", "ties", "stream", goal="<= 3x"),
    Case("dare_ties", "dare_ties", "stream", goal="<= 3x"),
    Case("della", "della", "stream", goal="<= 4x"),
    Case("ties, process", "ties", "process", goal="300 MiB"),
    Case("linear, 5 merges in one read", "linear", "stream", n_outputs=5, goal="<= 1.2x"),
)


REFERENCES = (
    Case("linear, N=2, mergekit, whole process", "linear", "mergekit"),
    Case("linear, N=2, LM_Cocktail in float32, whole process", "linear", "lm_cocktail"),
)


def cases_on(device: str) -> list[Case]:
    """The same merges on a GPU."""
    return [
        Case(f"linear, N=2, on {device}", "linear", "stream", device=device),
        Case(f"linear, N=4, on {device}", "linear", "stream", n_candidates=4, device=device),
        Case(f"task_arithmetic, on {device}", "task_arithmetic", "stream", device=device),
        Case(f"linear, 5 merges in one read, on {device}", "linear", "stream", n_outputs=5, device=device),
    ]


def run_floor(n_inputs: int, n_outputs: int, checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """Move the bytes: every input through `cat`, one of them to every output with `cp`."""
    inputs = [str(each.folder / SINGLE_FILE) for each in checkpoints[:n_inputs]]
    subprocess.run(["cat", *inputs], stdout=subprocess.DEVNULL, check=True)
    output.mkdir()
    for number in range(n_outputs):
        subprocess.run(["cp", inputs[0], str(output / str(number))], check=True)


def run_stream(case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """Stream all tensors into preallocated files, without fsync; hashed only if that is the case's kind."""
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
    hashes = {each.folder / file.path: OrderedHash(each.folder / file.path) for each in made}
    for each in hashes.values():
        each.add(0, len(file.header))

    def on_written(path: Path, start: int, stop: int) -> None:
        if case.kind == "hashed":
            hashes[path].add(start, stop)

    stream_tensors(job, plan_parts(job, file.tensors), on_written)


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
    found = run_module("tests.benchmarks.bench_merge", "--process", case.name, *folders, str(output))
    return 1024 * found["peak_kib"]


def run_command(case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> int:
    """`cocktail merge` of a recipe with given weights, whose inputs it has hashed before; see `run_process`."""
    names = [each.name for each in checkpoints[: case.n_candidates]]
    recipe = {
        "name": "benchmark", "model_type": "decoder", "base": str(checkpoints[0].folder),
        "candidates": [{"name": each.name, "model": str(each.folder)} for each in checkpoints[: case.n_candidates]],
        "weigh": {"strategy": "given", "weights": _weights(names, 0)}, "merge": {"method": case.method},
    }  # fmt: skip
    path = output.with_name("recipe.yaml")
    path.write_text(json.dumps(recipe), encoding="utf-8")
    found = run_module("tests.benchmarks.bench_merge", "--command", str(path), str(output))
    return 1024 * found["peak_kib"]


def run_package(oracles: Path, case: Case, checkpoints: Sequence[Checkpoint], output: Path) -> int:
    """The same by another package in its own environment; see `run_process`."""
    folders = [str(each.folder) for each in checkpoints[: case.n_candidates]]
    return 1024 * run_reference(oracles, case.kind, f"merge_{case.kind}.py", str(output), *folders)["peak_kib"]


def runner_of(case: Case, oracles: Path | None) -> Callable[[Case, Sequence[Checkpoint], Path], int | None]:
    """What runs a case.

    Raises:
        ValueError: the case needs the environments of other packages, and there are none.
    """
    if case in REFERENCES:
        if oracles is None:
            raise ValueError(f"{case.name}: name the folder of environments with --oracles")
        return partial(run_package, oracles)
    return _RUN[case.kind]


_RUN: Mapping[str, Callable[[Case, Sequence[Checkpoint], Path], int | None]] = {
    "stream": run_stream,
    "hashed": run_stream,
    "merge": run_merge,
    "process": run_process,
    "command": run_command,
}
