"""The k elements of a vector with the largest magnitudes, exactly, without holding the vector.

Bit patterns of non-negative float32 numbers are ordered like the numbers. The upper bits of a pattern are its bin. The
elements so far suggest the bin that holds the k-th largest magnitude; in a window of a few bins around it every pattern
is counted by itself, and so is how many lie above. A second pass does that for what came before there was a window. If
the k-th largest is in it, that tells its magnitude. A guess that was wrong, as of a vector whose elements grow on the
way, costs one more look at all of them, or at worst two. Of elements with just the k-th largest magnitude the first by
position are kept, so that there are always k. Memory: at most 2.5 MiB for one k, whatever the vector's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.arithmetic import loops
from tasks.arithmetic.block import Numbers, as_tensor
from tasks.arithmetic.elements import as_elements
from tasks.arithmetic.linear import accumulation_dtype
from tasks.arithmetic.magnitudes import LOWER_BITS, N_LOWER, N_UPPER
from tasks.arithmetic.native_counting import Counting, Window, count_magnitudes

if TYPE_CHECKING:
    from torch import Tensor

# counting.c says so, too.
_WINDOW_BINS = 4


class _Cut:
    """Where the k largest end."""

    def __init__(self, n_kept: int):
        self.n_kept = n_kept
        self.window = Window(0, np.zeros((0, N_LOWER), np.int64), np.zeros(1, np.int64))
        self.limit: list[int] | None = None
        """Bit pattern of the k-th largest magnitude, and how many elements of just that one are still to be kept."""

    def watch(self, first_bin: int) -> None:
        """Count in a window, from nothing."""
        # Anew, not set to 0: pages that nothing is counted in are then never touched.
        self.window = Window(first_bin, np.zeros((_WINDOW_BINS, N_LOWER), np.int64), np.zeros(1, np.int64))

    def is_watched(self, number_of_bin: int, margin: int = 0) -> bool:
        """Whether a bin is in the window, with so many others at either side."""
        first_bin = self.window.first_bin
        return first_bin + margin <= number_of_bin < first_bin + len(self.window.counts) - margin

    def find(self) -> bool:
        """Find the limit once all elements were counted; False if it is outside of the window."""
        rank, sizes = self.n_kept - int(self.window.n_above[0]), self.window.counts.sum(axis=1)
        if not 0 < rank <= sizes.sum():
            return False
        # from_top[i]: elements in bin i of the window and above.
        from_top = np.cumsum(sizes[::-1])[::-1]
        number = int(np.flatnonzero(from_top >= rank)[-1])
        counts = self.window.counts[number]
        rank -= int(from_top[number] - sizes[number])
        from_top = np.cumsum(counts[::-1])[::-1]
        lower = int(np.flatnonzero(from_top >= rank)[-1])
        n_ties = rank - int(from_top[lower] - counts[lower])
        self.limit = [((self.window.first_bin + number) << LOWER_BITS) + lower, n_ties]
        return True


class LargestMagnitudes:
    """Finds the k largest magnitudes of one vector, for one or several k.

    Show it the vector, a difference, in order with `observe`, in each pass up to its `extent`; then once more with
    `keep`. Vectors are finite; those in float64 are ranked by their values rounded to float32.
    """

    N_PASSES = 4
    """At most: nothing mostly has to be seen in the last two."""

    def __init__(self, counts: Sequence[int], n_elements: int):
        """Begin with nothing seen.

        Args:
            counts: The numbers k, each from 1 to the vector's length.
            n_elements: The vector's length.
        """
        self._cuts = [_Cut(n_kept) for n_kept in counts]
        self._n_elements = n_elements
        # By bins: all elements until there is a window, then a sample.
        self._upper = np.zeros(N_UPPER, np.int64)
        self._n_seen = [0] * self.N_PASSES
        # From which element on windows are counted in the first pass; 0: they are not yet.
        self._begins = 0
        self._next_guess = 1
        self._extents = [n_elements]

    def observe(self, number: int, block: Numbers, origin: Numbers) -> None:
        """Count a part of the vector in a pass; see `observe_all`."""
        observe_all([self], number, [block], origin)

    def extent(self, number: int) -> int:
        """How many elements, from the first on, a pass must see; known once the pass before it is over."""
        if number == len(self._extents):
            self._extents.append([self._after_first, self._after_second, self._after_third][number - 1]())
        return self._extents[number]

    def keep(self, vector: Tensor, cut: int = 0) -> None:
        """Put 0 where an element is not among the largest, in place.

        Args:
            vector: (n,) the next part of the vector in float32 or float64, in order of position.
            cut: Which of the counts is meant, by index.
        """
        limit = self._limit(cut)
        limit[1] -= loops.selection.keep_largest(vector.numpy(), limit[0], limit[1])

    def limit(self, cut: int = 0) -> tuple[int, int]:
        """Bit pattern of the smallest magnitude that is kept, and how many of just that magnitude still are."""
        pattern, n_ties = self._limit(cut)
        return pattern, n_ties

    def wanted(self, number: int, block: Numbers) -> Counting:
        """What is to be counted of the next block."""
        if number == 0:
            if self._n_seen[0] >= self._next_guess:
                self._guess()
            return Counting(block, self._upper, bool(self._begins), self._windows() if self._begins else ())
        left = block[: max(0, self.extent(number) - self._n_seen[number])]
        return Counting(left, self._upper) if number == 2 else Counting(left, windows=self._windows())

    def note(self, number: int, n_elements: int) -> None:
        """So many elements have been counted."""
        self._n_seen[number] += n_elements

    def _guess(self) -> None:
        """Count where the k-th largest seem to be. Soon after the first block as much is known as matters."""
        n_seen = self._n_seen[0]
        self._next_guess = 2 * n_seen
        guesses = self._likely_bins()
        # Not at a window's edge: what comes may move it.
        if self._begins and all(cut.is_watched(guess, 1) for cut, guess in zip(self._cuts, guesses, strict=True)):
            return
        self._watch([guess - 1 for guess in guesses])
        self._begins = n_seen

    def _after_first(self) -> int:
        """What the second pass must see: what came before the windows, or all if they are not where they should be."""
        bins = self._likely_bins()
        if not self._begins:
            # All was counted by bins, so that these are certain.
            self._watch(bins)
        elif all(cut.is_watched(found) for cut, found in zip(self._cuts, bins, strict=True)):
            return self._begins
        else:
            self._watch([found - 1 for found in bins])
        return self._n_elements

    def _after_second(self) -> int:
        """What the third must count by bins: nothing if all was found."""
        if all([cut.find() for cut in self._cuts]):
            return 0
        self._upper[:] = 0
        return self._n_elements

    def _after_third(self) -> int:
        """What the fourth must see, now that the bins are certain: all, or nothing if all was found before."""
        if not self._extents[2]:
            return 0
        self._watch(self._likely_bins())
        return self._n_elements

    def _watch(self, first_bins: Sequence[int]) -> None:
        for cut, first_bin in zip(self._cuts, first_bins, strict=True):
            cut.watch(max(0, first_bin))

    def _windows(self) -> list[Window]:
        return [cut.window for cut in self._cuts]

    def _likely_bins(self) -> list[int]:
        """The bin of each k-th largest magnitude, as far as the elements by bins tell."""
        # from_top[i]: elements in bin i and above.
        from_top = np.cumsum(self._upper[::-1])[::-1]
        share = int(from_top[0]) / self._n_elements
        ranks = [max(1, round(cut.n_kept * share)) for cut in self._cuts]
        return [int(np.flatnonzero(from_top >= rank)[-1]) for rank in ranks]

    def _limit(self, cut: int) -> list[int]:
        found = self._cuts[cut]
        if found.limit is None:
            found.find()
        if found.limit is None:
            raise ValueError("a vector must be observed up to the extent of every pass before elements are kept")
        return found.limit


def observe_all(
    selections: Sequence[LargestMagnitudes], number: int, blocks: Sequence[Numbers], origin: Numbers
) -> None:
    """Count a part of several vectors in a pass; each has seen as many as the others.

    Args:
        selections: One per vector.
        number: Of the pass.
        blocks: (n,) each, what a vector leads to.
        origin: (n,) where all begin.
    """
    wanted = [selection.wanted(number, block) for selection, block in zip(selections, blocks, strict=True)]
    if not count_magnitudes(wanted, origin):
        for counting in wanted:
            _count_slowly(counting, origin[: len(counting.block)])
    for selection in selections:
        selection.note(number, len(origin))


def _count_slowly(counting: Counting, origin: Numbers) -> None:
    """The same without the library in C."""
    tensors = [as_tensor(counting.block), as_tensor(origin)]
    elements, base = as_elements(tensors, accumulation_dtype(tensors))
    if counting.upper is not None:
        loops.selection.count_upper(elements, base, counting.upper, counting.is_sample)
    for window in counting.windows:
        window.n_above[0] += loops.selection.count_in_window(elements, base, window.first_bin, window.counts)
