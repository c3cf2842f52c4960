"""Counting magnitudes by the bits of their patterns, and keeping the largest."""

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kernel import compiled, magnitude_pattern, widen
from tasks.arithmetic.elements import Elements, Real
from tasks.arithmetic.magnitudes import LOWER_BITS, SAMPLED

# As in counting.c. So many patterns stay in the cache nearest to a core.
_TILE = 1024


@compiled
def count_upper(elements: Elements, origin: Elements, counts: NDArray[np.int64], is_sample: bool) -> None:
    """Count magnitudes of differences by the upper bits of their patterns; of one tile in eight, as eight each."""
    patterns = np.empty(_TILE, np.uint32)
    for tile in range((elements.size + _TILE - 1) // _TILE):
        if is_sample and tile % SAMPLED != tile // SAMPLED * 5 % SAMPLED:
            continue
        start = tile * _TILE
        for pattern in _fill_patterns(elements[start : start + _TILE], origin[start : start + _TILE], patterns):
            counts[pattern >> np.uint32(LOWER_BITS)] += SAMPLED if is_sample else 1


@compiled
def count_in_window(elements: Elements, origin: Elements, first_bin: int, counts: NDArray[np.int64]) -> int:
    """Count each pattern of the magnitudes of differences from a bin on, as many bins as `counts` has.

    Returns:
        How many patterns are above them.
    """
    lowest, width, n_above = np.uint32(first_bin << LOWER_BITS), np.uint32(counts.size), 0
    flat, patterns = counts.reshape(-1), np.empty(_TILE, np.uint32)
    for start in range(0, elements.size, _TILE):
        for pattern in _fill_patterns(elements[start : start + _TILE], origin[start : start + _TILE], patterns):
            if pattern < lowest:
                continue
            if pattern - lowest < width:
                flat[pattern - lowest] += 1
            else:
                n_above += 1
    return n_above


@compiled
def _fill_patterns(elements: Elements, origin: Elements, patterns: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The patterns of a tile by themselves: a processor computes several at once, though it counts one by one."""
    for i in range(elements.size):
        patterns[i] = magnitude_pattern(widen(elements[i]) - widen(origin[i]))
    return patterns[: elements.size]


@compiled
def keep_largest(vector: Real, threshold: int, n_ties: int) -> int:
    """Put 0 into magnitudes below a pattern, and into those equal to it but for the first `n_ties`, in place.

    Returns:
        How many of the equal ones were kept.
    """
    limit, zero = np.uint32(threshold), vector.dtype.type(0)
    n_equal = 0
    if n_ties > 0:
        for i in range(vector.size):
            n_equal += magnitude_pattern(vector[i]) == limit
    if n_equal <= n_ties:
        # All of the equal ones are kept, or none: no need to go by their order.
        least = limit if n_ties > 0 else limit + np.uint32(1)
        for i in range(vector.size):
            vector[i] = vector[i] if magnitude_pattern(vector[i]) >= least else zero
        return n_equal
    n_kept = 0
    for i in range(vector.size):
        pattern = magnitude_pattern(vector[i])
        if pattern == limit and n_kept < n_ties:
            n_kept += 1
        elif pattern <= limit:
            vector[i] = zero
    return n_kept
