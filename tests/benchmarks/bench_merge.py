"""Linear merge against the floor: reading every input with `cat` and writing one output with `cp`.

    PYTHONPATH=. python tests/benchmarks/bench_merge.py --megabytes 2200 --candidates 2

Both are timed in turns on the same warm files, so that a busy machine slows both. Shown are medians:

* floor: `cat` of all inputs and `cp` of one; the bytes, no arithmetic, not brought to disk
* stream: tensors streamed into preallocated files, as the floor neither hashed nor brought to disk
* merge: the whole of `merge_checkpoints`, with sha256 of the output and fsync
"""

import argparse
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

import torch

from tasks.checkpoint import SINGLE_FILE, describe_folder, read_tensor_views
from tasks.digests import hash_file
from tasks.merge import methods
from tasks.merge.blocks import Job, Source
from tasks.merge.layout import plan_layout
from tasks.merge.merge import merge_checkpoints
from tasks.merge.ranges import preallocate
from tasks.merge.stream import BLOCK_ELEMENTS, stream_tensors
from tasks.records import Checkpoint, FileDigest
from tasks.tensors import TensorView

_HIDDEN, _INTERMEDIATE = 2048, 5632
_LAYER = {"q": _HIDDEN, "k": _HIDDEN, "v": _HIDDEN, "o": _HIDDEN, "gate": _INTERMEDIATE, "up": _INTERMEDIATE}
_MAX_SHARD_BYTES = 5 * 10**9


def write_checkpoint(folder: Path, megabytes: int, seed: int) -> Checkpoint:
    """A bfloat16 checkpoint of decoder-like matrices, near the asked size."""
    shapes = {name: (rows, _HIDDEN) for name, rows in _LAYER.items()}
    layer_bytes = 2 * sum(rows * columns for rows, columns in shapes.values())
    n_layers = max(1, round(megabytes * 1e6 / layer_bytes))
    views = {
        name: TensorView(name, "BF16", shape, Path(SINGLE_FILE), 0)
        for layer in range(n_layers)
        for name, shape in ((f"layers.{layer}.{part}.weight", shape) for part, shape in shapes.items())
    }
    (file,) = plan_layout(views, "base", 10**15).files
    numbers = torch.randn(_INTERMEDIATE * _HIDDEN, generator=torch.Generator().manual_seed(seed)).bfloat16()
    content = numbers.view(torch.int16).numpy()
    folder.mkdir()
    with (folder / SINGLE_FILE).open("wb") as stream:
        stream.write(file.header)
        for tensor in file.tensors:
            stream.write(content[: tensor.n_elements].tobytes())
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    # Of the weights only the size is needed here; hashing them would take longer than the benchmark.
    files = {"config.json": hash_file(folder / "config.json"), SINGLE_FILE: FileDigest("0" * 64, file.size)}
    return describe_folder(folder.name, str(folder), folder, files)


def run_floor(candidates: Sequence[Checkpoint], output: Path) -> None:
    """Move the bytes: every input through `cat`, one output through `cp`."""
    inputs = [str(candidate.folder / SINGLE_FILE) for candidate in candidates]
    subprocess.run(["cat", *inputs], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["cp", inputs[0], str(output)], check=True)


def run_stream(candidates: Sequence[Checkpoint], output: Path) -> None:
    """Stream all tensors into preallocated files, without hashing and fsync."""
    sources = [Source(candidate.name, read_tensor_views(candidate.folder)) for candidate in candidates]
    blend = methods.linear(candidates, equal_weights(candidates))
    (file,) = plan_layout(sources[0].tensors, "base", 10**15).files
    output.mkdir()
    preallocate(output / file.path, file.size)
    job = Job(sources[0], sources, blend.combine, output, BLOCK_ELEMENTS)
    stream_tensors(job, file.tensors, lambda *_: None)


def run_merge(candidates: Sequence[Checkpoint], output: Path) -> None:
    """The whole step."""
    merge_checkpoints(
        candidates[0],
        candidates,
        equal_weights(candidates),
        method="linear",
        dtype="base",
        max_shard_bytes=_MAX_SHARD_BYTES,
        template=candidates[0],
        output=output,
    )


def equal_weights(candidates: Sequence[Checkpoint]) -> dict[str, float]:
    """The same share for each."""
    return {candidate.name: 1 / len(candidates) for candidate in candidates}


def measure(run: Callable[[Path], None], output: Path) -> float:
    """Seconds of one run; its output is removed afterwards."""
    started = time.perf_counter()
    run(output)
    seconds = time.perf_counter() - started
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink()
    return seconds


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description="Linear merge against cat and cp.")
    parser.add_argument("--megabytes", type=int, default=500, help="size of one candidate")
    parser.add_argument("--candidates", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--folder", type=Path, help="where the files go; left out: the folder for temporary files")
    arguments = parser.parse_args()
    runs = {"floor": run_floor, "stream": run_stream, "merge": run_merge}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-merge-") as temporary:
        folder = Path(temporary)
        candidates = [
            write_checkpoint(folder / f"candidate-{number}", arguments.megabytes, number)
            for number in range(arguments.candidates)
        ]
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        # The first round warms the page cache and is not counted.
        for number in range(arguments.repeats + 1):
            for name, run in runs.items():
                found = measure(partial(run, candidates), folder / "output")
                if number:
                    seconds[name].append(found)
    floor = statistics.median(seconds["floor"])
    size = candidates[0].size / 1e6
    lines = [
        f"{len(candidates)} candidates of {size:.0f} MB in bfloat16, medians of {arguments.repeats}",
        "",
        "| | seconds | of the floor | slowest |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {median:.2f} | {median / floor:.2f}x | {max(values):.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
