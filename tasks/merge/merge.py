"""Merge checkpoints into a new one: check everything, plan every byte, stream, verify, name.

Needs torch and nothing larger: neither transformers nor Prefect.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tasks.checkpoint import describe_folder, other_files, read_tensor_views
from tasks.compatibility import tensor_mismatches
from tasks.errors import CheckpointError, CheckpointMismatchError
from tasks.merge import methods
from tasks.merge.blocks import Job, Source
from tasks.merge.layout import Layout, plan_layout
from tasks.merge.ranges import OrderedHash, open_descriptor, preallocate, write_range
from tasks.merge.stream import BLOCK_ELEMENTS, stream_tensors
from tasks.merge.template import copy_other_files
from tasks.records import Checkpoint, FileDigest, MergedModel
from tasks.staging import check_space, commit, staged, sync, write_file, writing
from tasks.tensors import FLOAT_DTYPES, TensorView

logger = logging.getLogger(__name__)

Method = Literal["linear", "task_arithmetic"]
Views = Mapping[str, TensorView]


def merge_checkpoints(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: Mapping[str, float],
    *,
    method: Method,
    general: str | None = None,
    scale: float = 1.0,
    dtype: str,
    max_shard_bytes: int,
    template: Checkpoint,
    output: Path,
    report_progress: Callable[[int, int], None] | None = None,
) -> MergedModel:
    """Merge candidates into a new checkpoint in `output`, which appears whole or not at all.

    Args:
        base: Decides tensor names, shapes and dtypes, and gives integer and boolean tensors. It is part of the result
            only as a candidate, or as what task vectors are differences from.
        candidates: What is merged, in this order. Those of weight 0 must fit, too, but are not read.
        weights: Candidate name to share (linear) or omega (task_arithmetic).
        method: linear: sum of weight x candidate. task_arithmetic: general + scale x sum of
            weight x (candidate - base) over all candidates but the general one.
        general: task_arithmetic: the candidate that skills are added to; None for the base itself.
        scale: task_arithmetic: factor of the sum, lambda in the literature.
        dtype: Of the written floating tensors: float32, float16, bfloat16, or base: each as in the base.
        max_shard_bytes: Largest size of one safetensors file, counted in tensor bytes.
        template: Where config, tokenizer and all other files are copied from.
        output: A folder that does not exist yet, or is empty.
        report_progress: Called in this thread with tensor bytes written and tensor bytes in all.

    Returns:
        The merged checkpoint, named `merged`, and what it cost.

    Raises:
        ValueError: names, weights or dtype make no sense.
        CheckpointError: `output` is taken, or an input is damaged.
        CheckpointMismatchError: tensors of an input do not fit the base; all of them are listed.
        NonFiniteError: an input holds NaN or infinity, or the result overflows its dtype.
        StoreError: `output` cannot be written, or there is no space.

    Source: LM-Cocktail, https://arxiv.org/abs/2311.13534; task arithmetic, https://arxiv.org/abs/2212.04089
    """
    started = time.perf_counter()
    _check_weights(candidates, weights)
    blend = (
        methods.linear(candidates, weights)
        if method == "linear"
        else methods.task_arithmetic(base, candidates, weights, general, scale)
    )
    place = check_output(output)
    views = {folder: read_tensor_views(folder) for folder in {each.folder for each in (base, *candidates, template)}}
    _check_mergeable(base, [*candidates, template], views)
    layout = plan_layout(views[base.folder], dtype, max_shard_bytes)
    check_space(place, layout.n_bytes + sum(file.size for file in other_files(template).values()))
    with writing(place), staged(place) as draft:
        draft.mkdir()
        sources = [Source(source.name, views[source.folder]) for source in blend.sources]
        job = Job(Source(base.name, views[base.folder]), sources, blend.combine, draft, BLOCK_ELEMENTS)
        files = copy_other_files(template, layout.float_dtypes(), draft)
        files |= _write_weights(job, layout, report_progress)
        commit(draft, place)
    merged = MergedModel(
        checkpoint=describe_folder("merged", str(place), place, files),
        bytes_read=_bytes_read(job),
        bytes_written=sum(file.size for file in files.values()),
        seconds=time.perf_counter() - started,
    )
    logger.info(
        "merged %s (%s) into %s: read %.1f MB, wrote %.1f MB in %.2f s",
        ", ".join(source.name for source in sources), method, place,
        merged.bytes_read / 1e6, merged.bytes_written / 1e6, merged.seconds,
    )  # fmt: skip
    return merged


def check_output(output: Path) -> Path:
    """The place of the output with links resolved; it may be an empty folder.

    Raises:
        CheckpointError: something is there already, or the place cannot be renamed to.
    """
    resolved = output.resolve()
    if resolved.is_dir():
        if os.path.ismount(resolved):
            raise CheckpointError(f"{output}: this is a mount point; name a new folder inside it")
        if any(resolved.iterdir()):
            raise CheckpointError(f"{output}: the folder is not empty; name a new one, or remove what is in it")
    elif resolved.exists():
        raise CheckpointError(f"{output}: this is a file; name a new folder for the merged model")
    return resolved


def _check_weights(candidates: Sequence[Checkpoint], weights: Mapping[str, float]) -> None:
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"candidates need a name each; found {', '.join(names)}")
    if set(names) != set(weights):
        raise ValueError(f"expected a weight for each of {', '.join(names)}; found {', '.join(weights) or 'none'}")
    if broken := [f"{name} ({weight})" for name, weight in weights.items() if not math.isfinite(weight)]:
        raise ValueError(f"merge weights must be finite numbers; these are not: {', '.join(broken)}")


def _check_mergeable(base: Checkpoint, others: Sequence[Checkpoint], views: Mapping[Path, Views]) -> None:
    distinct = {other.folder: other for other in others if other.folder != base.folder}
    problems = (
        tensor_mismatches(views[base.folder], views[folder], base.name, other.name)
        for folder, other in distinct.items()
    )
    lines = [f"  - {problem}" for found in problems for problem in found]
    if lines:
        raise CheckpointMismatchError(
            "these checkpoints cannot be merged; merge only models fine-tuned from the same base model:\n"
            + "\n".join(lines)
        )


def _write_weights(
    job: Job, layout: Layout, report_progress: Callable[[int, int], None] | None
) -> dict[str, FileDigest]:
    """Write all safetensors files and indexes of the layout; what was written, by path inside the checkpoint."""
    hashes: dict[str, OrderedHash] = {}
    for file in layout.files:
        path = job.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        preallocate(path, file.size)
        with open_descriptor(path, os.O_WRONLY) as descriptor:
            write_range(descriptor, 0, memoryview(file.header))
        hashes[file.path] = OrderedHash(path)
        hashes[file.path].add(0, len(file.header))

    def on_written(path: str, start: int, stop: int) -> None:
        hashes[path].add(start, stop)

    tensors = [tensor for file in layout.files for tensor in file.tensors]
    stream_tensors(job, tensors, on_written, report_progress)
    for file in layout.files:
        sync(job.folder / file.path)
    indexes = {path: write_file(job.folder / path, content) for path, content in layout.indexes.items()}
    return {path: ordered.digest() for path, ordered in hashes.items()} | indexes


def _bytes_read(job: Job) -> int:
    """Tensor bytes: of floating tensors in every source, of the others in the base."""
    floating = (
        view.n_bytes for source in job.sources for view in source.tensors.values() if view.dtype in FLOAT_DTYPES
    )
    copied = (view.n_bytes for view in job.base.tensors.values() if view.dtype not in FLOAT_DTYPES)
    return sum(floating) + sum(copied)
