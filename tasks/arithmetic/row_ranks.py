"""Values by rank: of every element of a row, what belongs to the rank of its magnitude in that row.

A row is sorted in two steps, by keys that hold an element's magnitude and its position: into bins by the upper bits of
the magnitude, about as many bins as there are elements, then by moving each key to its place among the few before it.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Real, compiled, magnitude_pattern

# Bins reach this many powers of two below the largest magnitude of a row. All that is smaller shares the lowest; of
# normally distributed numbers that is 1 %.
_N_OCTAVES = 8
_FRACTION_BITS = 23
# Keys are moved so often, on average, at most: there are too many in a bin where magnitudes hardly differ.
_MOVES_PER_KEY = 8


def by_rank(vector: Tensor, length: int, values: NDArray[np.int32], out: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each element the value of its rank among the magnitudes of its row; equal ones rank by position.

    Args:
        vector: (n,) in float32, or in float64 to be ranked by its value rounded to float32; finite, whole rows.
        length: Of a row.
        values: (length,) that of the smallest magnitude first.
        out: (n,) for the result.

    Returns:
        `out`.
    """
    # Up to 2**18 bins.
    shift = max(_FRACTION_BITS + _N_OCTAVES.bit_length() - 1 - (length - 1).bit_length(), 8)
    _spread_by_rank(vector.numpy(), length, min(shift, _FRACTION_BITS), values, out)
    return out


@compiled
def _spread_by_rank(vector: Real, length: int, shift: int, values: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """`by_rank`, with bins by the bits from `shift` on."""
    counts = np.empty(_N_OCTAVES << (_FRACTION_BITS - shift), np.int32)
    keys, bins = np.empty(length, np.uint64), np.empty(length, np.uint32)
    for start in range(0, vector.size, length):
        _sort_into_bins(vector[start : start + length], shift, bins, counts, keys)
        if not _sort_by_moves(keys, _MOVES_PER_KEY * length):
            keys.sort()
        for i in range(length):
            out[start + np.int64(keys[i] & np.uint64(0xFFFFFFFF))] = values[i]


@compiled
def _sort_into_bins(
    row: Real, shift: int, bins: NDArray[np.uint32], counts: NDArray[np.int32], keys: NDArray[np.uint64]
) -> None:
    """Put keys in the order of bins, and of positions in each bin: a counting sort. `bins`: memory for (length,)."""
    places, largest = np.uint32(shift), np.uint32(0)
    for i in range(row.size):
        largest = max(largest, magnitude_pattern(row[i]))
    first = np.uint32(max(np.int32(0), np.int32(largest >> places) - np.int32(counts.size - 1)))
    # By themselves, so that a processor computes several at once.
    for i in range(row.size):
        bins[i] = np.uint32(max(magnitude_pattern(row[i]) >> places, first) - first)
    counts[:] = 0
    for i in range(row.size):
        counts[bins[i]] += 1
    before = np.int32(0)
    for i in range(counts.size):
        count = counts[i]
        counts[i] = before
        before += count
    for i in range(row.size):
        place = counts[bins[i]]
        counts[bins[i]] = place + 1
        keys[np.uint32(place)] = (np.uint64(magnitude_pattern(row[i])) << np.uint64(32)) | np.uint64(i)


@compiled
def _sort_by_moves(keys: NDArray[np.uint64], n_allowed: int) -> bool:
    """Move each key before the larger ones; False if that took many more single moves than allowed, and was ended."""
    n_moves = 0
    for i in range(1, keys.size):
        key, place = keys[i], i
        while place > 0 and keys[place - 1] > key:
            keys[place] = keys[place - 1]
            place -= 1
        if place < i:
            keys[place] = key
            n_moves += i - place
            if n_moves > n_allowed:
                return False
    return True
