"""Inner products of tensors that come out the same whatever the machine, the number of threads or the size of blocks.

Every block of `REDUCTION_BLOCK` elements is summed by itself, in float64: element i is added to running sum (lane) i
modulo `N_LANES`, so that a processor can add several at once and the order is still the same on all. The lanes of a
block are then added one after the other, and the blocks exactly. Products of two float32 numbers, and so of float16 and
bfloat16 numbers, are exact in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic import loops
from tasks.arithmetic.block import Numbers, as_tensor
from tasks.arithmetic.elements import Elements, as_elements
from tasks.arithmetic.linear import accumulation_dtype
from tasks.arithmetic.native_dot_products import add_products
from tasks.arithmetic.reductions import N_LANES, REDUCTION_BLOCK
from tasks.arithmetic.scratch import SCRATCH

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


class DotProducts:
    """Inner products of several vectors with each other, one tensor long; or of their differences from an origin.

    The error is below 1100 x 1.2e-16 of the sum of the absolute terms, whatever the length: each of a block's 64 lanes
    is a sum of 1024 products.
    """

    def __init__(self, n_vectors: int):
        self._n_seen = 0
        self._pairs = [(left, right) for left in range(n_vectors) for right in range(left, n_vectors)]
        # Of each pair: the lanes of the block that is not yet full, and the sums of those that are.
        self._lanes = np.zeros((len(self._pairs), N_LANES))
        self._blocks: list[NDArray[np.float64]] = []

    def add(self, vectors: Sequence[Numbers], origin: Numbers | None = None) -> None:
        """Take the next block of every vector.

        Args:
            vectors: (n,) each; any n.
            origin: (n,), subtracted from each of them in float64; None for nothing.
        """
        n_elements = vectors[0].numel()
        closed = np.empty((len(self._pairs), n_elements // REDUCTION_BLOCK + 1))
        n_closed = add_products(vectors, origin, self._n_seen, self._lanes, closed)
        if n_closed is None:
            arrays = _as_arrays(list(map(as_tensor, vectors)), None if origin is None else as_tensor(origin))
            for (left, right), lanes, sums in zip(self._pairs, self._lanes, closed, strict=True):
                n_closed = loops.dot_products.add_products(arrays[left], arrays[right], self._n_seen, lanes, sums)
        if n_closed:
            self._blocks.append(closed[:, :n_closed])
        self._n_seen += n_elements

    def dot(self, left: int, right: int) -> float:
        """Inner product of two of the vectors, by their index."""
        pair = self._pairs.index((min(left, right), max(left, right)))
        terms: list[float] = self._lanes[pair].tolist()
        for sums in self._blocks:
            terms += sums[pair].tolist()
        return math.fsum(terms)

    def norm(self, index: int) -> float:
        """Euclidean length of one of the vectors."""
        return math.sqrt(self.dot(index, index))


def _as_arrays(vectors: Sequence[Tensor], origin: Tensor | None) -> list[Elements]:
    if origin is None:
        return as_elements(vectors, accumulation_dtype(vectors))
    return [_difference(number, vector, origin) for number, vector in enumerate(vectors)]


def _difference(number: int, vector: Tensor, origin: Tensor) -> NDArray[np.float64]:
    """In float64, in memory of this thread that is used again when a vector of this number comes next."""
    return SCRATCH.vector(f"difference {number}", len(vector), torch.float64).copy_(vector).sub_(origin).numpy()
