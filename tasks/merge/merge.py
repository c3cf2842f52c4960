"""Merge checkpoints into new ones: check everything, plan every byte, stream, verify, name.

Needs neither transformers nor Prefect, and torch only for what the library in C does not know (`torch_when_used`).
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.checkpoint import describe_folder
from tasks.errors import CheckpointError
from tasks.layered import Setting
from tasks.merge.device import computing_device, place_on
from tasks.merge.health import HealthMode, measure_health
from tasks.merge.inputs import Choice, choose
from tasks.merge.job import count_bytes_read, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.opening import make_job, open_models
from tasks.merge.outputs import write_outputs
from tasks.merge.resume import find_merged, merge_key, note_merged
from tasks.merge.seen import SeenModels, blaming_changes, see_models
from tasks.merge_records import MergedModel
from tasks.processor import has_fma
from tasks.records import Checkpoint
from tasks.tokens.rows import EmbeddingsRule

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Form:
    """What outputs look like."""

    dtype: str
    max_shard_bytes: int
    template: Checkpoint
    embeddings: EmbeddingsRule | None
    device: str | None = None
    """The GPU that computes them, if one does."""


def merge_checkpoints(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: Mapping[str, Setting],
    *,
    method: str,
    parameters: Mapping[str, Setting] = {},
    candidate_parameters: Mapping[str, Mapping[str, Setting]] = {},
    general: str | None = None,
    seed: int = 0,
    dtype: str,
    max_shard_bytes: int,
    template: Checkpoint,
    output: Path,
    embeddings: EmbeddingsRule | None = None,
    has_base: bool = True,
    health: HealthMode = "sample",
    is_ours: bool = False,
    seen: SeenModels | None = None,
    device: str = "cpu",
    report_progress: Report | None = None,
) -> MergedModel:
    """Merge candidates into a new checkpoint in `output`, which appears whole or not at all.

    A merge that was killed and is started again with equal inputs proves the weight files that it had finished, which
    lie in a draft beside `output`, and goes on with the others.

    Args:
        base: Decides tensor names, shapes and dtypes, and gives integer and boolean tensors. It is part of the result
            only as a candidate, or where the method reads it.
        candidates: What is merged, in this order; an adapter is added to its model while that is read. Those of weight
            0 must fit, too, but methods that they mean nothing to do not read them.
        weights: Candidate name to share (linear), omega (task_arithmetic), or what the method makes of it; a number,
            or numbers by depth or by tensor name.
        method: One of `tasks.arithmetic.catalogue.METHOD_NAMES`.
        parameters: Of the method, by name; those left out are at their default.
        candidate_parameters: Candidate name to the method's parameters of that candidate.
        general: The candidate that skills are added to; None for the base itself.
        seed: For methods that draw random numbers.
        dtype: Of the written floating tensors: float32, float16, bfloat16, or base: each as in the base.
        max_shard_bytes: Largest size of one safetensors file, counted in tensor bytes.
        template: Where config, tokenizer and all other files are copied from.
        output: A folder that does not exist yet, or is empty.
        embeddings: base or union: candidates may have other tokens than the base, and rows of tokens are looked up by
            token (`tasks.merge.vocabulary`); the template must be the base then. None: all have the same.
        has_base: False: no base was named, and the one given, the first candidate as a rule, stands in for names,
            shapes, dtypes and integers alone; a method that can do without a base does.
        health: Whether a sample, all or none of the elements are compared, see `tasks.merge.health`.
        is_ours: Whether `output` is for merges of this run and of runs like it only: what an equal merge has left
            there is proven and returned, and anything else there is removed.
        seen: Files of the models when their content was proven, which must still be those; None: as they are now.
        device: cpu, or cuda:<i>, which this process then holds and which nobody else should be using: see
            `tasks.merge.leased`. Its bytes may differ as `tasks.merge.device` says. Methods that are not `on_device`
            are merged by the processor all the same.
        report_progress: Called in this thread with tensor bytes written and tensor bytes in all.

    Returns:
        The merged checkpoint, named `merged`, and what it cost; what was finished before has cost nothing.

    Raises:
        ValueError: method, names, numbers or dtype make no sense.
        CheckpointError: `output` is taken, or an input is damaged.
        CheckpointMismatchError: tensors of an input do not fit the base; all of them are listed.
        ModelChangedError: somebody wrote to an input; files that were finished before are kept for an equal merge.
        NonFiniteError: an input holds NaN or infinity, or the result overflows its dtype.
        StoreError: `output` cannot be written, or there is no space.
        RecipeError, DeviceError: the device is not there, or has too little free memory.

    Source: LM-Cocktail, https://arxiv.org/abs/2311.13534; of each method: the file that bears its name
    """
    names = [candidate.name for candidate in candidates]
    choice = choose(method, names, weights, parameters, candidate_parameters, general, seed, has_base)
    form = _Form(dtype, max_shard_bytes, template, embeddings, computing_device(device, choice.method))
    key = merge_key(base, candidates, choice, dtype, max_shard_bytes, template, embeddings, form.device)
    if is_ours and (found := find_merged(output, key)):
        return found
    (merged,) = _merge(base, candidates, [choice], [output], form, key, health, report_progress, seen)
    if is_ours:
        note_merged(merged, output, key)
    return merged


def merge_many(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: Sequence[Mapping[str, Setting]],
    *,
    outputs: Sequence[Path],
    method: str,
    parameters: Mapping[str, Setting] = {},
    candidate_parameters: Mapping[str, Mapping[str, Setting]] = {},
    general: str | None = None,
    seed: int = 0,
    dtype: str,
    max_shard_bytes: int,
    template: Checkpoint,
    embeddings: EmbeddingsRule | None = None,
    has_base: bool = True,
    health: HealthMode = "none",
    report_progress: Report | None = None,
) -> list[MergedModel]:
    """Merge the same candidates with several weights, reading every input once.

    There is one mapping in `weights` for each folder in `outputs`, which then has the bytes that `merge_checkpoints`
    would have written; all other arguments and errors are as there, but `health` is not measured unless it is asked
    for, since that reads what it compares a second time. Either all outputs appear or, but for a fault
    while they are renamed at the very end, none does. Killed, it begins anew: going on would read all inputs again.

    Returns:
        One per output. Bytes read and seconds are those of all together.

    Raises:
        ValueError: also if the method needs passes over a tensor, or there is not one output for each of the weights.
    """
    if not weights or len(weights) != len(outputs) or len({output.resolve() for output in outputs}) < len(outputs):
        raise ValueError(
            f"expected a folder of its own for each of {len(weights)} weights; found {', '.join(map(str, outputs))}"
        )
    names = [candidate.name for candidate in candidates]
    choices = [
        choose(method, names, each, parameters, candidate_parameters, general, seed, has_base) for each in weights
    ]
    form = _Form(dtype, max_shard_bytes, template, embeddings)
    return _merge(base, candidates, choices, outputs, form, None, health, report_progress)


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


def _merge(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    choices: Sequence[Choice],
    outputs: Sequence[Path],
    form: _Form,
    key: str | None,
    health: HealthMode,
    report_progress: Report | None,
    seen: SeenModels | None = None,
) -> list[MergedModel]:
    """One output for each of the choices, which differ in their weights only; resumed if there is a key."""
    started = time.perf_counter()
    places = [check_output(output) for output in outputs]
    if has_fma() is False:
        logger.warning(
            "this processor cannot fuse multiplications and additions (FMA, x86-64-v3): elements may differ by one "
            "unit in the last place from a merge on one that can"
        )
    seen = seen or see_models(base, *candidates, form.template)
    with blaming_changes(seen.check):
        models = open_models(base, candidates, form.template, form.embeddings)
        layout = plan_layout(models.views, form.dtype, form.max_shard_bytes)
        job = replace(make_job(models, choices, places), check_inputs=seen.check)
        tensors = [tensor for file in layout.files for tensor in file.tensors]
        if form.device is not None:
            job = place_on(form.device, job, tensors)
        parts = plan_parts(job, tensors)
        found = measure_health(job, tensors, health)
    written, parts = write_outputs(job, parts, layout, form.template, models.changed_files, key, report_progress)
    seconds = time.perf_counter() - started
    bytes_read = count_bytes_read(job, parts)
    logger.info(
        "merged %s (%s) into %s: read %.1f MB, wrote %.1f MB, reused %.1f MB in %.2f s",
        ", ".join(source.name for source in job.sources), choices[0].method.name, ", ".join(map(str, places)),
        bytes_read / 1e6, sum(each.n_written for each in written) / 1e6, sum(each.n_reused for each in written) / 1e6,
        seconds,
    )  # fmt: skip
    return [
        MergedModel(
            checkpoint=describe_folder("merged", str(place), place, each.files),
            bytes_read=bytes_read,
            bytes_written=each.n_written,
            seconds=seconds,
            health=found,
            vocabulary=form.embeddings,
            added_tokens=models.n_added_tokens,
        )
        for place, each in zip(places, written, strict=True)
    ]
