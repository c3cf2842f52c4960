"""Sums over pieces of task vectors: products of every two, and how often their signs agree or conflict."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.merge.sampling import Sample
from tasks.merge.sources import ReadBlock, TensorSource, describe, extra_elements, reading_anywhere
from tasks.tensors import DTYPE_BYTES

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Differences:
    """Who was found to differ from whom; it is only ever added to, so that threads may share it."""

    def __init__(self, n_candidates: int):
        self.of_base = np.zeros(n_candidates, np.bool_)
        """Whether a candidate differs from the base."""
        self.of_candidates = np.zeros((n_candidates, n_candidates), np.bool_)
        """Whether two candidates differ; said above the diagonal only."""

    def note(self, vectors: Array) -> None:
        """Look for differences that are not known yet in a piece, (n candidates, n elements), of task vectors."""
        for index, vector in enumerate(vectors):
            if not self.of_base[index] and vector.any():
                self.of_base[index] = True
        for left in range(len(vectors)):
            for right in range(left + 1, len(vectors)):
                if not self.of_candidates[left, right] and not np.array_equal(vectors[left], vectors[right]):
                    self.of_candidates[left, right] = True


@dataclass(slots=True)
class TaskVectorSums:
    """What is summed over elements; of matrices, (n candidates, n candidates), both halves are filled."""

    base: float
    """Squares of the base."""
    dots: Array
    """Products of two task vectors."""
    shared: Array
    """How often both are other than 0."""
    opposed: Array
    """How often they have opposite signs."""
    contested: float = 0.0
    """How often two or more of all are other than 0."""
    disputed: float = 0.0
    """How often any two of all have opposite signs."""

    @classmethod
    def zero(cls, n_candidates: int) -> "TaskVectorSums":
        """Of no elements."""
        shape = (n_candidates, n_candidates)
        return cls(0.0, np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, other: "TaskVectorSums", scale: float = 1.0) -> None:
        """Add the sums of other elements, each of which counts `scale` times."""
        with np.errstate(invalid="ignore", over="ignore"):
            self.base += scale * other.base
            self.dots += scale * other.dots
        self.shared += scale * other.shared
        self.opposed += scale * other.opposed
        self.contested += scale * other.contested
        self.disputed += scale * other.disputed


class _Scratch(threading.local):
    """Memory that a thread uses for piece after piece."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(0))
        self.wide = np.empty((0, REDUCTION_BLOCK))

    def reserve(self, n_sources: int, n_bytes: int) -> None:
        """Room for the bytes of one piece, and for the pieces of so many sources and one product in float64."""
        if len(self.bytes) < n_bytes:
            self.bytes = memoryview(bytearray(n_bytes))
        if len(self.wide) < n_sources + 1:
            self.wide = np.empty((n_sources + 1, REDUCTION_BLOCK))


_SCRATCH = _Scratch()


def sum_sample(sources: Sequence[TensorSource], sample: Sample, differences: Differences) -> TaskVectorSums:
    """Sum over the pieces of a sample, in their order.

    Args:
        sources: The base, then the candidates.
        sample: What is read of them.
        differences: Told what is found.

    Raises:
        CheckpointError: a file became shorter, or cannot be read.
    """
    name = sample.tensor.name
    views = [describe(source, name) for source in sources]
    longest = max(n_elements for _, n_elements in sample.pieces)
    sizes = [
        (longest + extra_elements(source, name)) * DTYPE_BYTES[view.dtype]
        for source, view in zip(sources, views, strict=True)
    ]
    _SCRATCH.reserve(len(sources), max(sizes))
    total = TaskVectorSums.zero(len(sources) - 1)
    with ExitStack() as files:
        # What a candidate takes from the base, as most tensors of an adapter, need not be read again.
        readers = [
            None if index and view == views[0] else files.enter_context(reading_anywhere(source, name))
            for index, (source, view) in enumerate(zip(sources, views, strict=True))
        ]
        for first, n_elements in sample.pieces:
            total.add(_sum_piece(readers, first, n_elements, differences))
    return total


def _sum_piece(
    readers: Sequence[ReadBlock | None], first: int, n_elements: int, differences: Differences
) -> TaskVectorSums:
    wide = _SCRATCH.wide[: len(readers) + 1, :n_elements]
    for index, read in enumerate(readers):
        if read is None:
            wide[index] = wide[0]
        else:
            read(first, n_elements, _SCRATCH.bytes).copy_in_float64(wide[index])
    base, vectors, product = wide[0], wide[1:-1], wide[-1]
    # Inputs that are not finite are the merge's to refuse.
    with np.errstate(all="ignore"):
        sums = TaskVectorSums.zero(len(vectors))
        sums.base = float(np.add.reduce(np.multiply(base, base, out=product)))
        np.subtract(vectors, base, out=vectors)
        for left in range(len(vectors)):
            for right in range(left, len(vectors)):
                dot = np.add.reduce(np.multiply(vectors[left], vectors[right], out=product))
                sums.dots[left, right] = sums.dots[right, left] = dot
        _count_signs(vectors, sums)
        differences.note(vectors)
    return sums


def _count_signs(vectors: Array, sums: TaskVectorSums) -> None:
    """Fill the counts of one piece, (n candidates, n elements)."""
    above, below = vectors > 0, vectors < 0
    moved = above | below
    for left in range(len(vectors)):
        sums.shared[left, left] = np.count_nonzero(moved[left])
        for right in range(left + 1, len(vectors)):
            shared = moved[left] & moved[right]
            sums.shared[left, right] = sums.shared[right, left] = np.count_nonzero(shared)
            opposed = np.count_nonzero(shared & (above[left] ^ above[right]))
            sums.opposed[left, right] = sums.opposed[right, left] = opposed
    if len(vectors) == 2:
        # The only two there are.
        sums.contested, sums.disputed = float(sums.shared[0, 1]), float(sums.opposed[0, 1])
    elif len(vectors) > 2:
        sums.contested = float(np.count_nonzero(np.add.reduce(moved, axis=0, dtype=np.int32) >= 2))
        sums.disputed = float(np.count_nonzero(above.any(axis=0) & below.any(axis=0)))
