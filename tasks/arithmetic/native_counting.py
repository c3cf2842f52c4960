"""Counts of magnitudes of task vectors in C (`counting.c`); see `tasks.arithmetic.library` and `selection`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.library import operands


class _Counting(ctypes.Structure):
    _fields_ = [
        ("block", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("n_windows", ctypes.c_uint32),
        ("n_elements", ctypes.c_int64),
        ("upper", ctypes.c_void_p),
        ("is_sample", ctypes.c_int32),
        ("bins", ctypes.c_void_p),
        ("windows", ctypes.c_void_p),
        ("n_above", ctypes.c_void_p),
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """A few bins of magnitudes, in which each pattern is counted by itself."""

    first_bin: int
    counts: NDArray[np.int64]
    """(bins, lower bits)."""
    n_above: NDArray[np.int64]
    """(1,) how many patterns are above its last bin."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What is to be counted of one task vector, as `LargestMagnitudes` needs it."""

    block: Numbers
    """(n,) what the vector leads to."""
    upper: NDArray[np.int64] | None = None
    """(bins,) where all are counted by the upper bits of their patterns; None for not."""
    is_sample: bool = False
    """Whether only one tile of `SAMPLED` is counted there, each element as so many."""
    windows: Sequence[Window] = ()


def count_magnitudes(countings: Sequence[Counting], origin: Numbers) -> bool:
    """Count the magnitudes of blocks - origin by the bits of their patterns.

    Args:
        countings: Their blocks may be shorter than the origin, of which then the beginning counts.
        origin: (n,).

    Returns:
        Whether it was done; otherwise all counts are as they were.
    """
    begin = operands([origin])
    found = [operands([each.block]) for each in countings]
    blocks = [each for each in found if each is not None]
    if begin is None or len(blocks) < len(found) or any(len(each.block) > len(origin) for each in countings):
        return False
    held = [_window_arrays(each.windows) for each in countings]
    structures = (_Counting * len(countings))(
        *[
            _Counting(
                block.addresses[0], block.codes[0], len(each.windows), each.block.numel(),
                None if each.upper is None else each.upper.ctypes.data, each.is_sample, *map(ctypes.addressof, arrays),
            )
            for each, block, arrays in zip(countings, blocks, held, strict=True)
        ]
    )  # fmt: skip
    begin.library.count_magnitudes(structures, len(countings), begin.addresses[0], begin.codes[0])
    return True


def _window_arrays(windows: Sequence[Window]) -> list[ctypes.Array[Any]]:
    """First bins, and where counts begin in memory."""
    n_windows = len(windows)
    return [
        (ctypes.c_uint32 * n_windows)(*[window.first_bin for window in windows]),
        (ctypes.c_void_p * n_windows)(*[window.counts.ctypes.data for window in windows]),
        (ctypes.c_void_p * n_windows)(*[window.n_above.ctypes.data for window in windows]),
    ]
