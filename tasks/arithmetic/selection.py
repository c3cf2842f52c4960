"""The k elements of a vector with the largest magnitudes, exactly, without holding the vector.

Bit patterns of non-negative float32 numbers are ordered like the numbers. A first pass over the vector counts the
patterns' upper bits, which tells the bin that holds the k-th largest magnitude; the lower bits of what is in that bin
tell the magnitude itself. They are counted in the first pass, too, for a few bins around the one that the elements so
far suggest; a second pass is left only for what came before the bin was among them. Of elements with just the k-th
largest magnitude the first by position are kept, so that there are always k. Memory: at most 2.5 MiB for one k,
whatever the vector's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic import loops
from tasks.arithmetic.elements import as_elements
from tasks.arithmetic.linear import accumulation_dtype
from tasks.arithmetic.magnitudes import LOWER_BITS, N_LOWER, N_UPPER
from tasks.arithmetic.native_thinning import Counting, count_magnitudes

# Bins whose lower bits are counted in the first pass; thinning.c says so, too.
_WINDOW_BINS = 4


@dataclass(slots=True)
class _Cut:
    """Where the k largest end."""

    n_kept: int
    first_bin: int = 0
    """Of the window, the bins whose lower bits are counted."""
    window: NDArray[np.int64] = field(default_factory=lambda: np.zeros((_WINDOW_BINS, N_LOWER), np.int64))
    """(bins, lower bits)."""
    bin: int = 0
    """Upper bits of the k-th largest magnitude."""
    n_above: int = 0
    """Elements in higher bins."""
    threshold: int = 0
    """Bit pattern of the k-th largest magnitude."""
    n_ties_left: int = 0
    """How many elements of that magnitude are still to be kept."""

    def watch(self, first_bin: int) -> None:
        """Count in a window, from nothing."""
        self.first_bin = first_bin
        # Anew, not set to 0: pages that nothing is counted in are then never touched.
        self.window = np.zeros((_WINDOW_BINS, N_LOWER), np.int64)

    def holds(self, number_of_bin: int, margin: int = 0) -> bool:
        """Whether a bin is in the window, with so many others at either side."""
        return self.first_bin + margin <= number_of_bin < self.first_bin + _WINDOW_BINS - margin


class LargestMagnitudes:
    """Finds the k largest magnitudes of one vector, for one or several k.

    Show it the vector, a difference, in order with `observe`; then, up to `extent`, again; then once more with `keep`.
    Vectors are finite; those in float64 are ranked by their values rounded to float32.
    """

    N_PASSES = 2

    def __init__(self, counts: Sequence[int], n_elements: int):
        """Begin with nothing seen.

        Args:
            counts: The numbers k, each from 1 to the vector's length.
            n_elements: The vector's length.
        """
        self._cuts = [_Cut(n_kept) for n_kept in counts]
        self._n_elements = n_elements
        self._upper = np.zeros(N_UPPER, np.int64)
        self._n_seen = [0, 0]
        # From which element on windows are counted in the first pass; 0: they are not yet.
        self._begins = 0
        self._next_guess = 1
        self._bins_found = self._found = False

    def observe(self, number: int, block: Tensor, origin: Tensor) -> None:
        """Count a part of the vector in pass 0 or 1; see `observe_all`."""
        observe_all([self], number, [block], origin)

    def extent(self) -> int:
        """After the first pass: how many elements, from the first on, the second must see."""
        self._find_bins()
        return self._begins

    def keep(self, vector: Tensor, cut: int = 0) -> None:
        """Put 0 where an element is not among the largest, in place.

        Args:
            vector: (n,) the next part of the vector in float32 or float64, in order of position.
            cut: Which of the counts is meant, by index.
        """
        self.limit(cut)
        found = self._cuts[cut]
        found.n_ties_left -= loops.selection.keep_largest(vector.numpy(), found.threshold, found.n_ties_left)

    def limit(self, cut: int = 0) -> tuple[int, int]:
        """Bit pattern of the smallest magnitude that is kept, and how many of just that magnitude still are."""
        if not self._found:
            self._find_thresholds()
        return self._cuts[cut].threshold, self._cuts[cut].n_ties_left

    def wanted(self, number: int, block: Tensor) -> Counting:
        """What is to be counted of the next block."""
        if number:
            return Counting(block[: max(0, self.extent() - self._n_seen[1])], None, self._windows())
        if self._n_seen[0] >= self._next_guess:
            self._guess()
        return Counting(block, self._upper, self._windows() if self._begins else ())

    def count_slowly(self, number: int, block: Tensor, origin: Tensor) -> None:
        """What `wanted` asks for, without the library in C: all of the vector is seen twice."""
        elements, base = as_elements([block, origin], accumulation_dtype([block, origin]))
        if number == 0:
            loops.selection.count_upper(elements, base, self._upper)
            self._begins, self._next_guess = 0, self._n_elements
            return
        for cut in self._cuts:
            loops.selection.count_lower(elements, base, cut.bin, cut.window[cut.bin - cut.first_bin])

    def note(self, number: int, n_elements: int) -> None:
        """So many elements have been counted."""
        self._n_seen[number] += n_elements

    def _guess(self) -> None:
        """Count where the k-th largest seem to be. Soon after the first block as much is known as matters."""
        n_seen = self._n_seen[0]
        self._next_guess = 2 * n_seen
        guesses = [self._bin_of(max(1, round(cut.n_kept * n_seen / self._n_elements)))[0] for cut in self._cuts]
        # Not at a window's edge: what comes may move it.
        if self._begins and all(cut.holds(guess, 1) for cut, guess in zip(self._cuts, guesses, strict=True)):
            return
        for cut, guess in zip(self._cuts, guesses, strict=True):
            cut.watch(max(0, guess - 1))
        self._begins = n_seen

    def _windows(self) -> list[tuple[int, NDArray[np.int64]]]:
        return [(cut.first_bin, cut.window) for cut in self._cuts]

    def _bin_of(self, rank: int) -> tuple[int, int]:
        """The bin of what has this rank among the magnitudes so far, and how many are in higher bins."""
        # from_top[i]: elements in bin i and above.
        from_top = np.cumsum(self._upper[::-1])[::-1]
        found = int(np.flatnonzero(from_top >= rank)[-1])
        return found, int(from_top[found] - self._upper[found])

    def _find_bins(self) -> None:
        """Once the first pass is over."""
        if self._bins_found:
            return
        self._bins_found = True
        for cut in self._cuts:
            cut.bin, cut.n_above = self._bin_of(cut.n_kept)
        if not self._begins or not all(cut.holds(cut.bin) for cut in self._cuts):
            for cut in self._cuts:
                cut.watch(cut.bin)
            self._begins = self._n_seen[0]

    def _find_thresholds(self) -> None:
        for cut in self._cuts:
            counts = cut.window[cut.bin - cut.first_bin]
            from_top = np.cumsum(counts[::-1])[::-1] + cut.n_above
            lower = int(np.flatnonzero(from_top >= cut.n_kept)[-1])
            cut.threshold = (cut.bin << LOWER_BITS) + lower
            cut.n_ties_left = cut.n_kept - int(from_top[lower] - counts[lower])
        self._found = True


def observe_all(selections: Sequence[LargestMagnitudes], number: int, blocks: Sequence[Tensor], origin: Tensor) -> None:
    """Count a part of several vectors in pass 0 or 1; each has seen as many as the others.

    Args:
        selections: One per vector.
        number: Of the pass.
        blocks: (n,) each, what a vector leads to.
        origin: (n,) where all begin.
    """
    wanted = [selection.wanted(number, block) for selection, block in zip(selections, blocks, strict=True)]
    if not count_magnitudes(wanted, origin):
        for selection, block in zip(selections, blocks, strict=True):
            selection.count_slowly(number, block, origin)
    for selection in selections:
        selection.note(number, len(origin))
