"""Inner products in C (`dot_products.c`); see `tasks.arithmetic.library`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.library import operands

_MAX_VECTORS = 32
"""As in C."""


def add_products(
    vectors: Sequence[Numbers],
    origin: Numbers | None,
    n_seen: int,
    lanes: NDArray[np.float64],
    closed: NDArray[np.float64],
) -> int | None:
    """Add the products of every pair of blocks to the lanes of `DotProducts`.

    Args:
        vectors: (n,) each.
        origin: (n,), subtracted from all in float64; None for nothing.
        n_seen: How many elements came before.
        lanes: (pairs, lanes) running sums of the reduction block that is not yet full.
        closed: (pairs, blocks) where the sums of those that become full are put; long enough.

    Returns:
        How many became full; None, and all as it was, where it cannot be done here.
    """
    found = operands(vectors if origin is None else [*vectors, origin])
    if found is None or len(vectors) > _MAX_VECTORS:
        return None
    library, addresses, codes = found
    start, dtype = (None, 0) if origin is None else (addresses[-1], codes[-1])
    return library.add_products(
        addresses, codes, len(vectors), start, dtype, vectors[0].numel(), n_seen,
        lanes.ctypes.data, closed.ctypes.data, closed.shape[1],
    )  # fmt: skip
