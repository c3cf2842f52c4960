"""From several task vectors to one: a plain sum, or TIES' election of a sign for every parameter.

Signs are elected by products and sums that are rounded one by one, so that no fused multiply-add can turn one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Real, compiled

# So many elements of some vectors stay in the cache nearest to a core.
_TILE = 1024


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
    _sum_agreeing(elements, factors, sizes, normalize, total.numpy())
    return total


def plain_sum(vectors: Tensor, coefficients: Sequence[float], total: Tensor) -> Tensor:
    """Sum of coefficient x vector in `total`, as task arithmetic adds task vectors; of (k, n) vectors."""
    total.zero_()
    for vector, coefficient in zip(vectors, coefficients, strict=True):
        total.add_(vector, alpha=coefficient)
    return total


@compiled
def _sum_agreeing(vectors: Real, coefficients: Real, sizes: Real, normalize: bool, total: Real) -> None:
    """`agreeing_sum`, tile by tile; sizes are those of the weights."""
    n_elements, zero, smallest = total.size, total.dtype.type(0), sizes.min()
    elected, agreeing = np.empty(_TILE, total.dtype), np.empty(_TILE, total.dtype)
    for start in range(0, n_elements, _TILE):
        length = min(_TILE, n_elements - start)
        result = total[start : start + length]
        elected[:], agreeing[:], result[:] = zero, zero, zero
        # One row at a time: its elements lie side by side, as several can be added at once only then.
        for k in range(len(vectors)):
            vector, coefficient = vectors[k, start : start + length], coefficients[k]
            for i in range(length):
                elected[i] += vector[i] * coefficient
        for k in range(len(vectors)):
            _add_agreeing(vectors[k, start : start + length], coefficients[k], sizes[k], elected, agreeing, result)
        if normalize:
            for i in range(length):
                # Where nothing agrees it is 0 / smallest, in place of 0 / 0.
                result[i] /= max(agreeing[i], smallest)


@compiled
def _add_agreeing(
    vector: Real, coefficient: float, size: float, elected: NDArray[Any], agreeing: NDArray[Any], result: Real
) -> None:
    """Add what has the elected sign to the result, and its size to what agrees."""
    zero = result.dtype.type(0)
    for i in range(vector.size):
        weighted = vector[i] * coefficient
        agrees = ((weighted > zero) & (elected[i] > zero)) | ((weighted < zero) & (elected[i] < zero))
        result[i] += weighted if agrees else zero
        agreeing[i] += size if agrees else zero
