"""Merge methods as what to read and how to combine it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.task_vectors import add_task_vectors
from tasks.records import Checkpoint

Combine = Callable[[Sequence[Tensor], Tensor], Tensor]
"""Blocks of one tensor, one per source, and where the result is put, in the precision of the sum; returns it."""


@dataclass(frozen=True, slots=True)
class Blend:
    """A method with its numbers filled in."""

    sources: tuple[Checkpoint, ...]
    """Checkpoints whose tensors are read; those that count nothing are left out."""
    combine: Combine


def linear(candidates: Sequence[Checkpoint], weights: Mapping[str, float]) -> Blend:
    """The weighted sum of the candidates.

    Raises:
        ValueError: all weights are 0.
    """
    sources = tuple(candidate for candidate in candidates if weights[candidate.name] != 0)
    if not sources:
        raise ValueError("all merge weights are 0; at least one candidate must count")
    return _weighted_sum_of(sources, [weights[source.name] for source in sources])


def task_arithmetic(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: Mapping[str, float],
    general: str | None,
    scale: float,
) -> Blend:
    """The general model plus the scaled task vectors of all other candidates.

    Args:
        base: What the task vectors are differences from.
        candidates: The general model, if it is one of them, and the skills.
        weights: Candidate name to omega; the general model's number is not used.
        general: A candidate's name; None adds the skills to the base itself.
        scale: Factor of the sum of task vectors.

    Raises:
        ValueError: no candidate is called `general`.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    if general is not None and general not in by_name:
        raise ValueError(f"general: there is no candidate {general!r}; candidates are {', '.join(by_name)}")
    start = base if general is None else by_name.pop(general)
    skills = tuple(skill for name, skill in by_name.items() if scale * weights[name] != 0)
    if not skills:
        return _weighted_sum_of((start,), [1.0])
    omegas = [weights[skill.name] for skill in skills]
    if general is None:
        return Blend((base, *skills), partial(_add_to_base, omegas=omegas, scale=scale))
    return Blend((start, base, *skills), partial(_add_to_general, omegas=omegas, scale=scale))


def _weighted_sum_of(sources: tuple[Checkpoint, ...], coefficients: Sequence[float]) -> Blend:
    return Blend(sources, lambda blocks, out: weighted_sum(blocks, coefficients, out))


def _add_to_base(blocks: Sequence[Tensor], out: Tensor, omegas: Sequence[float], scale: float) -> Tensor:
    base, *skills = blocks
    return add_task_vectors(base, base, skills, omegas, scale, out)


def _add_to_general(blocks: Sequence[Tensor], out: Tensor, omegas: Sequence[float], scale: float) -> Tensor:
    general, base, *skills = blocks
    return add_task_vectors(general, base, skills, omegas, scale, out)
