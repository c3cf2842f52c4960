"""The k elements of a vector with the largest magnitudes, exactly, without holding the vector.

Bit patterns of non-negative float32 numbers are ordered like the numbers. A first pass over the vector counts the
patterns' upper bits, which tells the bin that holds the k-th largest magnitude; a second counts the lower bits of what
is in that bin, which tells the magnitude itself. Of elements with just that magnitude the first by position are kept,
so that there are always k. Memory: about 1 MiB, whatever the vector's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Elements, Real, compiled, magnitude_pattern, widen

# 8 bits of exponent and the first 7 of 23 of the fraction; the sign is left out.
_LOWER_BITS = 16
_N_UPPER = 1 << (31 - _LOWER_BITS)
_N_LOWER = 1 << _LOWER_BITS
# So many patterns stay in the cache nearest to a core.
_TILE = 2048


@dataclass(slots=True)
class _Cut:
    """Where the k largest end."""

    n_kept: int
    bin: int = 0
    """Upper bits of the k-th largest magnitude."""
    n_above: int = 0
    """Elements in higher bins."""
    threshold: int = 0
    """Bit pattern of the k-th largest magnitude."""
    n_ties_left: int = 0
    """How many elements of that magnitude are still to be kept."""


class LargestMagnitudes:
    """Finds the k largest magnitudes of one vector, for one or several k.

    Show it the vector, a difference, twice with `observe`, then once more, in order, with `keep`. Vectors are finite;
    those in float64 are ranked by their values rounded to float32.
    """

    N_PASSES = 2

    def __init__(self, counts: Sequence[int]):
        """Begin with nothing seen.

        Args:
            counts: The numbers k, each from 1 to the vector's length.
        """
        self._cuts = [_Cut(n_kept) for n_kept in counts]
        self._upper = np.zeros(_N_UPPER, np.int64)
        self._lower: dict[int, NDArray[np.int64]] = {}
        self._found = False

    def observe(self, number: int, elements: Elements, origin: Elements) -> None:
        """Count a part of the vector in pass 0 or 1.

        Args:
            number: Of the pass.
            elements: (n,) what the vector leads to.
            origin: (n,) where it begins.
        """
        if number == 0:
            _count_upper(elements, origin, self._upper)
            return
        if not self._lower:
            self._find_bins()
        for number_of_bin, counts in self._lower.items():
            _count_lower(elements, origin, number_of_bin, counts)

    def keep(self, vector: Tensor, cut: int = 0) -> None:
        """Put 0 where an element is not among the largest, in place.

        Args:
            vector: (n,) the next part of the vector in float32 or float64, in order of position.
            cut: Which of the counts is meant, by index.
        """
        if not self._found:
            self._find_thresholds()
        found = self._cuts[cut]
        found.n_ties_left -= _keep_largest(vector.numpy(), found.threshold, found.n_ties_left)

    def _find_bins(self) -> None:
        # from_top[i]: elements in bin i and above.
        from_top = np.cumsum(self._upper[::-1])[::-1]
        for cut in self._cuts:
            cut.bin = int(np.flatnonzero(from_top >= cut.n_kept)[-1])
            cut.n_above = int(from_top[cut.bin] - self._upper[cut.bin])
            self._lower.setdefault(cut.bin, np.zeros(_N_LOWER, np.int64))

    def _find_thresholds(self) -> None:
        for cut in self._cuts:
            counts = self._lower[cut.bin]
            from_top = np.cumsum(counts[::-1])[::-1] + cut.n_above
            lower = int(np.flatnonzero(from_top >= cut.n_kept)[-1])
            cut.threshold = (cut.bin << _LOWER_BITS) + lower
            cut.n_ties_left = cut.n_kept - int(from_top[lower] - counts[lower])
        self._found = True


@compiled
def _count_upper(elements: Elements, origin: Elements, counts: NDArray[np.int64]) -> None:
    """Count magnitudes of differences by the upper bits of their patterns."""
    patterns = np.empty(_TILE, np.uint32)
    for start in range(0, elements.size, _TILE):
        for pattern in _fill_patterns(elements[start : start + _TILE], origin[start : start + _TILE], patterns):
            counts[pattern >> np.uint32(_LOWER_BITS)] += 1


@compiled
def _count_lower(elements: Elements, origin: Elements, upper: int, counts: NDArray[np.int64]) -> None:
    """Count those magnitudes of differences whose patterns' upper bits are `upper`, by the lower ones."""
    wanted, patterns = np.uint32(upper), np.empty(_TILE, np.uint32)
    for start in range(0, elements.size, _TILE):
        for pattern in _fill_patterns(elements[start : start + _TILE], origin[start : start + _TILE], patterns):
            if (pattern >> np.uint32(_LOWER_BITS)) == wanted:
                counts[pattern & np.uint32(_N_LOWER - 1)] += 1


@compiled
def _fill_patterns(elements: Elements, origin: Elements, patterns: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The patterns of a tile by themselves: a processor computes several at once, though it counts one by one."""
    for i in range(elements.size):
        patterns[i] = magnitude_pattern(widen(elements[i]) - widen(origin[i]))
    return patterns[: elements.size]


@compiled
def _keep_largest(vector: Real, threshold: int, n_ties: int) -> int:
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
