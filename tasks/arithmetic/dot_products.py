"""Inner products of tensors that come out the same whatever the machine, the number of threads or the size of blocks.

Every block of `REDUCTION_BLOCK` elements is summed by itself, in float64: element i is added to running sum (lane) i
modulo `_N_LANES`, so that a processor can add several at once and the order is still the same on all. Lanes and blocks
are then added exactly. Products of two float32 numbers, and so of float16 and bfloat16 numbers, are exact in float64.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Real, compiled
from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.arithmetic.scratch import SCRATCH

_N_LANES = 64


class DotProducts:
    """Inner products of several vectors with each other, one tensor long; or of their differences from an origin.

    The error is below 1024 x 1.2e-16 of the sum of the absolute terms, whatever the length; each of a block's 64
    lanes makes 1024 sums.
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
            vectors: (n,) each; any n, though multiples of `REDUCTION_BLOCK` are fastest.
            origin: (n,), subtracted from each of them in float64; None for nothing.
        """
        n_elements, first = len(vectors[0]), 0
        while first < n_elements:
            length = min(n_elements - first, REDUCTION_BLOCK - self._n_seen % REDUCTION_BLOCK)
            part = slice(first, first + length)
            self._add_piece([vector[part] for vector in vectors], None if origin is None else origin[part])
            first += length

    def dot(self, left: int, right: int) -> float:
        """Inner product of two of the vectors, by their index."""
        pair = min(left, right), max(left, right)
        return math.fsum([*self._blocks[pair], *self._lanes[pair].tolist()])

    def norm(self, index: int) -> float:
        """Euclidean length of one of the vectors."""
        return math.sqrt(self.dot(index, index))

    def _add_piece(self, pieces: Sequence[Tensor], origin: Tensor | None) -> None:
        """Add products to the lanes, and close the block if it is full."""
        arrays = _in_one_dtype(pieces, origin)
        for (left, right), lanes in self._lanes.items():
            _add_products(arrays[left], arrays[right], self._n_seen, lanes)
        self._n_seen += len(arrays[0])
        if self._n_seen % REDUCTION_BLOCK == 0:
            for pair, lanes in self._lanes.items():
                self._blocks[pair].append(math.fsum(lanes))
                lanes[:] = 0


def _in_one_dtype(pieces: Sequence[Tensor], origin: Tensor | None) -> list[NDArray[np.float32] | NDArray[np.float64]]:
    """The vectors in float32 where that is exact, else in float64, less the origin; in memory that is used again."""
    exact = origin is None and all(piece.dtype != torch.float64 for piece in pieces)
    dtype = torch.float32 if exact else torch.float64
    arrays: list[NDArray[np.float32] | NDArray[np.float64]] = []
    for number, piece in enumerate(pieces):
        vector = piece
        if piece.dtype != dtype or origin is not None:
            vector = SCRATCH.vector(f"vector {number}", len(piece), dtype).copy_(piece)
        arrays.append((vector if origin is None else vector.sub_(origin)).numpy())
    return arrays


@compiled
def _add_products(left: Real, right: Real, first: int, lanes: NDArray[np.float64]) -> None:
    """Add the product of elements i to lane (first + i) modulo their number."""
    n_elements, done = left.size, 0
    # A copy, of which the compiler knows that nothing else is in its memory.
    sums = lanes.copy()
    while done < n_elements:
        lane = (first + done) % _N_LANES
        if lane == 0 and n_elements - done >= _N_LANES:
            for i in range(_N_LANES):
                sums[i] += np.float64(left[done + i]) * np.float64(right[done + i])
            done += _N_LANES
        else:
            sums[lane] += np.float64(left[done]) * np.float64(right[done])
            done += 1
    lanes[:] = sums
