"""Inner products in C (`dot_products.c`); see `tasks.arithmetic.library`."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.library import code, library_for


def add_products(
    left: Tensor,
    right: Tensor,
    origin: Tensor | None,
    n_seen: int,
    lanes: NDArray[np.float64],
    closed: NDArray[np.float64],
) -> int | None:
    """Add the products of two blocks to the lanes of `DotProducts`.

    Args:
        left: (n,).
        right: (n,).
        origin: (n,), subtracted from both in float64; None for nothing.
        n_seen: How many elements came before.
        lanes: (lanes,) running sums of the reduction block that is not yet full.
        closed: Where the sums of those that become full are put; long enough.

    Returns:
        How many became full; None, and all as it was, where it cannot be done here.
    """
    library = library_for([left, right] if origin is None else [left, right, origin])
    if library is None:
        return None
    start, dtype = (None, 0) if origin is None else (origin.data_ptr(), code(origin))
    return library.add_products(
        left.data_ptr(), code(left), right.data_ptr(), code(right), start, dtype, len(left), n_seen,
        lanes.ctypes.data, closed.ctypes.data,
    )  # fmt: skip
