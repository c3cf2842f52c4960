"""Task arithmetic: what training changed, scaled and added to another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.linear import accumulation_dtype, check_equal_shapes
from tasks.arithmetic.scratch import scratch_like

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


def add_task_vectors(
    general: Tensor,
    base: Tensor,
    skills: Sequence[Tensor],
    omegas: Sequence[float],
    scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """general + scale * sum of omega_k * (skill_k - base), in float32, or in float64 if any tensor is.

    A difference is taken before it is scaled: of two close bfloat16 numbers it is exact in float32, while
    the sum of scaled terms would round it away.

    Args:
        general: The model that skills are added to. Merge to Learn: the one trained on general data.
        base: The model that all were trained from; `general` itself in task arithmetic proper.
        skills: Models trained on one skill each.
        omegas: How much of each skill's task vector is added, one per skill.
        scale: Factor of the whole sum, lambda in the literature.
        out: Where the result is put, in the dtype of the sum; it shares no memory with the others.

    Returns:
        The result, in the precision of the sum: the caller casts once, at the end.

    Raises:
        ValueError: shapes differ, or there are not as many omegas as skills.

    Source: task arithmetic, https://arxiv.org/abs/2212.04089; Merge to Learn, https://arxiv.org/abs/2410.12937
    """
    if len(skills) != len(omegas):
        raise ValueError(f"expected one omega per skill, found {len(omegas)} for {len(skills)} skills")
    tensors = [general, base, *skills]
    check_equal_shapes(tensors)
    dtype = accumulation_dtype(tensors)
    reference = scratch_like("base", base, dtype).copy_(base)
    total = (torch.empty_like(reference) if out is None else out).zero_()
    difference = scratch_like("difference", base, dtype)
    for skill, omega in zip(skills, omegas, strict=True):
        total.add_(difference.copy_(skill).sub_(reference), alpha=omega)
    # The converted base once more: torch would convert another first.
    return torch.add(reference if general is base else general, total, alpha=scale, out=total)
