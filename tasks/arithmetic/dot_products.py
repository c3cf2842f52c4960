"""Inner products of tensors that come out the same whatever the machine, the number of threads or the size of blocks.

Every block of `REDUCTION_BLOCK` elements is summed by itself, in float64: element i is added to running sum (lane) i
modulo `_N_LANES`, so that a processor can add several at once and the order is still the same on all. The lanes of a
block are then added one after the other, and the blocks exactly. Products of two float32 numbers, and so of float16 and
bfloat16 numbers, are exact in float64.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Elements, as_elements, compiled, widen
from tasks.arithmetic.linear import accumulation_dtype
from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.arithmetic.scratch import SCRATCH

_N_LANES = 64


class DotProducts:
    """Inner products of several vectors with each other, one tensor long; or of their differences from an origin.

    The error is below 1100 x 1.2e-16 of the sum of the absolute terms, whatever the length: each of a block's 64 lanes
    is a sum of 1024 products.
    """

    def __init__(self, n_vectors: int):
        self._n_seen = 0
        # Of each pair: the lanes of the block that is not yet full, and the sums of those that are.
        self._lanes = {
            (left, right): np.zeros(_N_LANES) for left in range(n_vectors) for right in range(left, n_vectors)
        }
        self._blocks: dict[tuple[int, int], list[float]] = {pair: [] for pair in self._lanes}

    def add(self, vectors: Sequence[Tensor], origin: Tensor | None = None) -> None:
        """Take the next block of every vector.

        Args:
            vectors: (n,) each; any n.
            origin: (n,), subtracted from each of them in float64; None for nothing.
        """
        if origin is None:
            arrays = as_elements(vectors, accumulation_dtype(vectors))
        else:
            arrays = [_difference(number, vector, origin) for number, vector in enumerate(vectors)]
        closed = np.empty(len(arrays[0]) // REDUCTION_BLOCK + 1)
        for (left, right), lanes in self._lanes.items():
            n_closed = _add_products(arrays[left], arrays[right], self._n_seen, lanes, closed)
            self._blocks[left, right] += closed[:n_closed].tolist()
        self._n_seen += len(arrays[0])

    def dot(self, left: int, right: int) -> float:
        """Inner product of two of the vectors, by their index."""
        pair = min(left, right), max(left, right)
        return math.fsum([*self._blocks[pair], *self._lanes[pair].tolist()])

    def norm(self, index: int) -> float:
        """Euclidean length of one of the vectors."""
        return math.sqrt(self.dot(index, index))


def _difference(number: int, vector: Tensor, origin: Tensor) -> NDArray[np.float64]:
    """In float64, in memory of this thread that is used again when a vector of this number comes next."""
    return SCRATCH.vector(f"difference {number}", len(vector), torch.float64).copy_(vector).sub_(origin).numpy()


@compiled
def _add_products(
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
        lane = (first + done) % _N_LANES
        if lane == 0 and n_elements - done >= _N_LANES:
            for i in range(_N_LANES):
                sums[i] += np.float64(widen(left[done + i])) * np.float64(widen(right[done + i]))
            done += _N_LANES
        else:
            sums[lane] += np.float64(widen(left[done])) * np.float64(widen(right[done]))
            done += 1
        if (first + done) % REDUCTION_BLOCK == 0:
            total = 0.0
            for i in range(_N_LANES):
                total += sums[i]
            closed[n_closed] = total
            n_closed += 1
            sums[:] = 0
    lanes[:] = sums
    return n_closed
