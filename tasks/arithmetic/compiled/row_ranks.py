"""Ranks of the elements of a row by magnitude; see `tasks.arithmetic.row_ranks`."""

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kernel import compiled, magnitude_pattern
from tasks.arithmetic.elements import Real

# Keys are moved so often, on average, at most: there are too many in a bin where magnitudes hardly differ.
_MOVES_PER_KEY = 8


@compiled
def spread_by_rank(
    vector: Real, length: int, shift: int, n_bins: int, values: NDArray[np.int32], out: NDArray[np.int32]
) -> None:
    """`by_rank`, with so many bins by the bits from `shift` on."""
    counts = np.empty(n_bins, np.int32)
    keys, bins = np.empty(length, np.uint64), np.empty(length, np.uint32)
    for start in range(0, vector.size, length):
        _sort_into_bins(vector[start : start + length], shift, bins, counts, keys)
        if not _sort_by_moves(keys, _MOVES_PER_KEY * length):
            keys.sort()
        first = 0
        while first < length:
            stop, pattern = first + 1, keys[first] >> np.uint64(32)
            while stop < length and keys[stop] >> np.uint64(32) == pattern:
                stop += 1
            for i in range(first, stop):
                out[start + np.int64(keys[i] & np.uint64(0xFFFFFFFF))] = values[first + stop]
            first = stop


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
