"""Inner products in a fixed order; see `tasks.arithmetic.dot_products`."""

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kernel import compiled, widen
from tasks.arithmetic.elements import Elements
from tasks.arithmetic.reductions import N_LANES, REDUCTION_BLOCK


@compiled
def add_products(
    left: Elements, right: Elements, first: int, lanes: NDArray[np.float64], closed: NDArray[np.float64]
) -> int:
    """Add the product of elements i to lane (first + i) modulo their number.

    Returns:
        How many blocks ended; their sums are in `closed`, and the lanes hold what came after them.
    """
    n_elements, done, n_closed = left.size, 0, 0
    # A copy, of which the compiler knows that nothing else is in its memory.
    sums = lanes.copy()
    while done < n_elements:
        lane = (first + done) % N_LANES
        if lane == 0 and n_elements - done >= N_LANES:
            for i in range(N_LANES):
                sums[i] += np.float64(widen(left[done + i])) * np.float64(widen(right[done + i]))
            done += N_LANES
        else:
            sums[lane] += np.float64(widen(left[done])) * np.float64(widen(right[done]))
            done += 1
        if (first + done) % REDUCTION_BLOCK == 0:
            total = 0.0
            for i in range(N_LANES):
                total += sums[i]
            closed[n_closed] = total
            n_closed += 1
            sums[:] = 0
    lanes[:] = sums
    return n_closed
