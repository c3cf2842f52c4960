"""Merges of thinned out task vectors in one pass over the inputs, in C (`thinning.c`); see `tasks.arithmetic.library`.

One call does a whole block: every call takes Python's lock, for which the threads of a merge would wait for each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.library import floats, operands
from tasks.arithmetic.scratch import SCRATCH

_TILE = 1024
_LONGEST_ROW = 2**16 - 1
"""As in C."""


class Thinning(ctypes.Structure):
    """What is kept of one task vector: all, or as one of the functions below says."""

    _fields_ = [
        ("how", ctypes.c_int32),
        ("has_least", ctypes.c_int32),
        ("has_largest", ctypes.c_int32),
        ("rescale", ctypes.c_int32),
        ("least", ctypes.c_uint32),
        ("largest", ctypes.c_uint32),
        ("least_ties", ctypes.c_int64),
        ("largest_ties", ctypes.c_int64),
        ("key", ctypes.c_uint32 * 2),
        ("chance", ctypes.c_uint32),
        ("chances", ctypes.c_void_p),
    ]


class _RowMemory(ctypes.Structure):
    _fields_ = [
        ("length", ctypes.c_ssize_t),
        ("n_bins", ctypes.c_int32),
        ("keys", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("bins", ctypes.c_void_p),
    ]


def keep_none() -> Thinning:
    """Drop all."""
    return Thinning(how=1)


def keep_by_size(least: tuple[int, int] | None, largest: tuple[int, int] | None = None) -> Thinning:
    """Keep magnitudes from the least on, below the largest.

    Args:
        least: Bit pattern of a magnitude, and how many elements of just that magnitude are kept, the first of the
            tensor; None for no limit.
        largest: The same of those that are too large: how many of just that magnitude are dropped.
    """
    least_pattern, least_ties = least or (0, 0)
    largest_pattern, largest_ties = largest or (0, 0)
    return Thinning(
        how=2, has_least=least is not None, least=least_pattern, least_ties=least_ties,
        has_largest=largest is not None, largest=largest_pattern, largest_ties=largest_ties,
    )  # fmt: skip


def keep_at_random(key: tuple[int, int], chance: int) -> Thinning:
    """Keep each element with one chance; see `PositionalNumbers.keep`."""
    return Thinning(how=3, key=key, chance=chance)


def keep_by_rank(key: tuple[int, int], chances: NDArray[np.int32], rescale: bool) -> Thinning | None:
    """Keep each element with the chance of its rank in its row; see `PositionalNumbers.keep_each` and `by_rank`.

    Args:
        key: Of the numbers.
        chances: (2 length + 1,) the values of `by_rank`.
        rescale: Divide what is kept by its chance.

    Returns:
        None where rows are too long.
    """
    if len(chances) // 2 > _LONGEST_ROW:
        return None
    made = Thinning(how=4, key=key, chances=chances.ctypes.data, rescale=rescale)
    made.held = chances
    return made


def thinned_sum_rounded(
    start_from: Numbers,
    base: Numbers,
    skills: Sequence[Numbers],
    thinnings: Sequence[Thinning | None],
    coefficients: Sequence[float],
    weights: Sequence[float] | None,
    normalize: bool,
    scale: float,
    position: int,
    row: int | None,
    out: Numbers,
) -> bool | None:
    """start_from + scale x combination of thinned out (skill - base), rounded once to the dtype of `out`.

    Args:
        start_from: (n,).
        base: (n,).
        skills: (n,) each.
        thinnings: One per skill; their ties are counted down. With a None nothing is done.
        coefficients: One per skill, as for `plain_sum` or `agreeing_sum`.
        weights: One per skill, to elect signs, as for `agreeing_sum`; None for a plain sum.
        normalize: As for `agreeing_sum`.
        scale: Factor of the combination.
        position: Of the first element in the tensor, modulo 2**32; the block does not go beyond the next multiple.
        row: Length of a row where elements are kept by rank; the block then holds whole rows.
        out: (n,), where the result is put.

    Returns:
        Whether all of it is finite; None, and `out` as it was, where it cannot be done here.
    """
    blocks = [start_from, base, *skills]
    found = operands([*blocks, out])
    n_elements = out.numel()
    known = [thinning for thinning in thinnings if thinning is not None]
    # numba's functions say what is wrong with the numbers of arguments; C would read past their end.
    fits = len(known) == len(coefficients) == len(skills) and len(weights or skills) == len(skills)
    if found is None or not fits or (row and n_elements % row):
        return None
    library, addresses, codes = found
    tile = max(1, _TILE // row) * row if row else _TILE
    counted = (Thinning * len(known))(*known)
    memory = SCRATCH.array("tiles", (len(skills) + 5) * tile, np.float32)
    is_finite = library.thinned_sum(
        addresses, codes, counted, floats(coefficients), floats(list(map(abs, weights or ()))), len(skills),
        weights is not None, normalize, scale, position, n_elements, tile, memory.ctypes.data,
        ctypes.byref(_row_memory(row or 0)), addresses[-1], codes[-1],
    )  # fmt: skip
    for thinning, after in zip(known, counted, strict=True):
        thinning.least_ties, thinning.largest_ties = after.least_ties, after.largest_ties
    return bool(is_finite)


def _row_memory(length: int) -> _RowMemory:
    """Memory of this thread for a row, see `ranks.h`."""
    n_bins = min(2 * length, 2**16)
    n_counts = max(n_bins, 2**10)
    keys = SCRATCH.array("ranks", 4 * length + n_counts, np.int32).ctypes.data
    counts = keys + 8 * length
    order = counts + 4 * n_counts
    return _RowMemory(length, n_bins, keys, counts, order, order + 4 * length)
