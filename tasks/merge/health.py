"""How far candidates moved from the base, and whether they pull the same way: what to know of a merge beside its bytes.

Of task vectors, candidate - base: their lengths, the cosine between every two, and where their signs conflict, as in
TIES. Numbers are from a fixed sample (`tasks.merge.sampling`), or exact if asked for, and the same on every machine:
each piece of a tensor is summed by itself in float64 by numpy, whose sum has one order, and the pieces in their order.

Source: task vectors, https://arxiv.org/abs/2212.04089; sign conflicts, https://arxiv.org/abs/2306.01708
"""

import itertools
import logging
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.merge.job import Job
from tasks.merge.sampling import GROUP_ELEMENTS, Sample, choose_samples
from tasks.merge.sources import TensorSource
from tasks.merge.stream import count_threads
from tasks.merge.task_vector_sums import Differences, TaskVectorSums, sum_sample
from tasks.merge_records import WHOLE_MODEL, MergeHealth
from tasks.tensors import FLOAT_DTYPES, TensorView
from tasks.torch_when_used import one_thread

logger = logging.getLogger(__name__)

HealthMode = Literal["sample", "exact", "none"]
"""Whether some, all or none of the elements are compared."""


def measure_health(
    job: Job, tensors: Iterable[TensorView], mode: HealthMode = "sample", n_threads: int | None = None
) -> MergeHealth | None:
    """Compare the candidates of a merge with its base and with each other; what is odd is logged, too.

    A candidate that is the base itself, with the very same files, is left out. NaN and infinity in the inputs make
    numbers None; the merge refuses them where it meets them.

    Args:
        job: Has the sources.
        tensors: What the merge writes; integers and booleans are ignored.
        mode: `exact` reads all elements of all sources once more.
        n_threads: `count_threads()` when left out.

    Returns:
        None if nothing was asked for, or there is no other candidate than the base itself.

    Raises:
        ValueError: there is no such mode.
        CheckpointError: a source's file became shorter.
    """
    if mode not in get_args(HealthMode):
        raise ValueError(f"health: expected one of {', '.join(get_args(HealthMode))}; found {mode!r}")
    floating = [tensor for tensor in tensors if tensor.dtype in FLOAT_DTYPES]
    candidates = [source for source in job.candidates if not _is_base(source, job.base, floating)]
    if mode == "none" or not candidates:
        return None
    started = time.perf_counter()
    samples = choose_samples(floating, None if mode == "exact" else GROUP_ELEMENTS)
    differences = Differences(len(candidates))
    sources = [job.base, *candidates]
    with one_thread(), ThreadPoolExecutor(n_threads or count_threads(), thread_name_prefix="health") as pool:
        sums = list(pool.map(lambda sample: sum_sample(sources, sample, differences), samples))
    health = _summarise([source.name for source in candidates], samples, sums, differences)
    logger.info(
        "health: compared %.4g %% of the elements of %d candidates with the base in %.2f s",
        100 * health.sampled_share, len(candidates), time.perf_counter() - started,
    )  # fmt: skip
    for warning in health.warnings:
        logger.warning("%s", warning)
    return health


def _is_base(source: TensorSource, base: TensorSource, tensors: Sequence[TensorView]) -> bool:
    """Whether all tensors lie in the same place of the same files."""
    return all(source.describe(tensor.name) == base.describe(tensor.name) for tensor in tensors)


def _summarise(
    names: Sequence[str], samples: Sequence[Sample], sums: Sequence[TaskVectorSums], differences: Differences
) -> MergeHealth:
    """Numbers of every group and of all, each element counting as often as its sample stands for."""
    totals = {sample.group: TaskVectorSums.zero(len(names)) for sample in samples}
    whole = totals[WHOLE_MODEL] = TaskVectorSums.zero(len(names))
    for sample, each in zip(samples, sums, strict=True):
        totals[sample.group].add(each, sample.scale)
        whole.add(each, sample.scale)
    compared = sum(sample.n_elements for sample in samples)
    # A tensor's samples stand for all of its elements together.
    n_elements = sum({sample.tensor.name: sample.tensor.n_elements for sample in samples}.values())
    return MergeHealth(
        candidates=tuple(names),
        groups=tuple(totals),
        base_norms={group: _norm(total.base) for group, total in totals.items()},
        norms={
            name: {group: _norm(total.dots[index, index]) for group, total in totals.items()}
            for index, name in enumerate(names)
        },
        cosines={group: _cosines(total.dots) for group, total in totals.items()},
        conflicts={group: _matrix(total.opposed, total.shared) for group, total in totals.items()},
        disagreements={group: _ratio(total.disputed, total.contested) for group, total in totals.items()},
        sampled_share=compared / n_elements if n_elements else 1.0,
        warnings=tuple(_warnings(names, differences, compared, n_elements)),
    )


def _warnings(names: Sequence[str], differences: Differences, compared: int, n_elements: int) -> Iterable[str]:
    where = f"all {n_elements:,} elements" if compared == n_elements else f"all {compared:,} elements of the sample"
    same = [index for index in range(len(names)) if not differences.of_base[index]]
    for index in same:
        yield f"candidate {names[index]} is equal to the base in {where}; it only weakens what the others bring"
    for left, right in itertools.combinations(range(len(names)), 2):
        # Two that equal the base were named already.
        if left not in same and not differences.of_candidates[left, right]:
            yield f"candidates {names[left]} and {names[right]} are equal in {where}; together they count twice"


def _norm(square: float) -> float | None:
    return math.sqrt(square) if math.isfinite(square) else None


def _cosines(dots: NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
    # The product of the lengths, not the length of the product of squares, which could overflow.
    with np.errstate(invalid="ignore"):
        lengths = np.sqrt(np.diagonal(dots))
    return tuple(
        tuple(
            _cosine(float(dots[left, right]), float(lengths[left]), float(lengths[right]), left == right)
            for right in range(len(dots))
        )
        for left in range(len(dots))
    )


def _cosine(dot: float, left: float, right: float, is_itself: bool) -> float | None:
    cosine = _ratio(dot, left * right)
    # Rounding may lead beyond 1.
    return None if cosine is None else 1.0 if is_itself else max(-1.0, min(1.0, cosine))


def _matrix(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(
        tuple(_ratio(float(part), float(whole)) for part, whole in zip(*rows, strict=True))
        for rows in zip(parts, wholes, strict=True)
    )


def _ratio(part: float, whole: float) -> float | None:
    """None where there is nothing to divide by, or nothing finite."""
    return part / whole if whole and math.isfinite(part) and math.isfinite(whole) else None
