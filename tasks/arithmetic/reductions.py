"""Sums over a tensor that come out the same whatever the machine, the number of threads or the size of blocks.

torch's own sums and BLAS add in an order that follows the width of the processor's vectors. Here the order is fixed:
columns are added from the top down, rows by numpy, whose pairwise sum has one order on every processor. Whole tensors
are added in `tasks.arithmetic.dot_products`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import Numbers, as_tensor

if TYPE_CHECKING:
    import torch
else:
    from tasks import torch_when_used as torch

REDUCTION_BLOCK = 64 * 1024
"""Blocks that a formula observes begin at multiples of it, and each such block of a tensor is summed by itself. So many
elements that a call costs little, so few that converted vectors stay close to a core."""

N_LANES = 64
"""Running sums of such a block, which are added at its end."""

Array = NDArray[np.float64]


class ColumnDotProducts:
    """Inner products of the columns of several matrices, each column added from the top down.

    Args:
        n_vectors: How many matrices.
        n_columns: At least 2, of each; memory is three float64 numbers per column for two matrices.
    """

    def __init__(self, n_vectors: int, n_columns: int):
        if n_columns < 2:
            # numpy would sum a single column pairwise, so that the size of blocks would matter.
            raise ValueError(f"expected 2 columns or more; found {n_columns}; take the tensor as one vector")
        self._n_columns = n_columns
        self._sums = {
            (left, right): np.zeros(n_columns) for left in range(n_vectors) for right in range(left, n_vectors)
        }

    def add(self, first: int, vectors: Sequence[Array]) -> None:
        """Take the next block of every matrix.

        Args:
            first: Index of the block's first element, in row-major order.
            vectors: (n,) each; a block may begin and end inside a row.
        """
        for elements, columns in _row_segments(first, len(vectors[0]), self._n_columns):
            width = columns.stop - columns.start
            for (left, right), sums in self._sums.items():
                products = (vectors[left][elements] * vectors[right][elements]).reshape(-1, width)
                sums[columns] = np.add.reduce(np.concatenate((sums[None, columns], products)), axis=0)

    def dot(self, left: int, right: int) -> Array:
        """(n_columns,): inner products of the columns of two of the matrices, by their index."""
        return self._sums[min(left, right), max(left, right)]


def row_dot_products(left: Array, right: Array) -> Array:
    """(rows,): inner product of each row of one (rows, columns) matrix with that of the other."""
    return np.add.reduce(left * right, axis=1)


def in_float64(vectors: Sequence[Numbers], origin: Numbers | None = None) -> list[Array]:
    """The vectors, or their differences from an origin."""
    wide = [as_tensor(vector).to(torch.float64) for vector in vectors]
    if origin is not None:
        start = as_tensor(origin).to(torch.float64)
        wide = [vector - start for vector in wide]
    return [vector.numpy() for vector in wide]


def _row_segments(first: int, n_elements: int, n_columns: int) -> Iterator[tuple[slice, slice]]:
    """Cut a block into the end of a row, whole rows and the start of a row; those that there are.

    Yields:
        Where the part lies in the block, and which columns it covers.
    """
    head = min(n_elements, -first % n_columns)
    tail = (n_elements - head) % n_columns
    column = first % n_columns
    if head:
        yield slice(0, head), slice(column, column + head)
    if n_elements > head + tail:
        yield slice(head, n_elements - tail), slice(0, n_columns)
    if tail:
        yield slice(n_elements - tail, n_elements), slice(0, tail)
