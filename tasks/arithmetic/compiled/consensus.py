"""Sums of what has the elected sign; see `tasks.arithmetic.consensus`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kernel import compiled
from tasks.arithmetic.elements import Real

# So many elements of some vectors stay in the cache nearest to a core.
_TILE = 1024


@compiled
def sum_agreeing(vectors: Real, coefficients: Real, sizes: Real, normalize: bool, total: Real) -> None:
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
