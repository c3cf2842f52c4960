"""From several task vectors to one: a plain sum, or TIES' election of a sign for every parameter.

Signs are elected by products and sums that are rounded one by one, so that no fused multiply-add can turn one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.arithmetic import loops

if TYPE_CHECKING:
    from torch import Tensor


def agreeing_sum(
    vectors: Tensor, coefficients: Sequence[float], weights: Sequence[float], normalize: bool, total: Tensor
) -> Tensor:
    """Elect a sign for every parameter and sum, or average, the task vectors that have it.

    The sign is that of the sum over all vectors. Where that sum is 0 no sign is elected, and the result is 0.

    Args:
        vectors: (k, n) at least one: task vectors.
        coefficients: One per vector, of the sign of its weight: what it is multiplied by first.
        weights: One per vector, not 0; only their size counts here.
        normalize: Divide by the sum of the weights that agree, which gives TIES' disjoint mean.
        total: (n,) for the result, in the dtype of the vectors.

    Returns:
        `total`.

    Source: TIES-Merging, https://arxiv.org/abs/2306.01708, sections 3.2 and 3.3
    """
    elements = vectors.numpy()
    factors, sizes = np.array(coefficients, elements.dtype), np.abs(np.array(weights, elements.dtype))
    loops.consensus.sum_agreeing(elements, factors, sizes, normalize, total.numpy())
    return total


def plain_sum(vectors: Tensor, coefficients: Sequence[float], total: Tensor) -> Tensor:
    """Sum of coefficient x vector in `total`, as task arithmetic adds task vectors; of (k, n) vectors."""
    total.zero_()
    for vector, coefficient in zip(vectors, coefficients, strict=True):
        total.add_(vector, alpha=coefficient)
    return total
