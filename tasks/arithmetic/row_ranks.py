"""Values by rank: of every element of a row, what belongs to the rank of its magnitude in that row.

A row is sorted in two steps, by keys that hold an element's magnitude and its position: into bins by the upper bits of
the magnitude, about as many bins as there are elements, then by moving each key to its place among the few before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic import loops

if TYPE_CHECKING:
    from torch import Tensor

# Bins reach this many powers of two below the largest magnitude of a row. All that is smaller shares the lowest; of
# normally distributed numbers that is 1 %.
_N_OCTAVES = 8
_FRACTION_BITS = 23


def by_rank(vector: Tensor, length: int, values: NDArray[np.int32], out: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each element the value of its rank among the magnitudes of its row; equal ones have the mean of their ranks.

    Args:
        vector: (n,) in float32, or in float64 to be ranked by its value rounded to float32; finite, whole rows.
        length: Of a row.
        values: (2 length + 1,) that of rank r, which is counted from 0 and may end in 1/2, at 2 r + 1. The first and
            the last belong to no rank.
        out: (n,) for the result.

    Returns:
        `out`.
    """
    # Up to 2**18 bins.
    shift = min(max(_FRACTION_BITS + _N_OCTAVES.bit_length() - 1 - (length - 1).bit_length(), 8), _FRACTION_BITS)
    n_bins = _N_OCTAVES << (_FRACTION_BITS - shift)
    loops.row_ranks.spread_by_rank(vector.numpy(), length, shift, n_bins, values, out)
    return out
