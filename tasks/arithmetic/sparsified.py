"""What TIES, DARE, DELLA and Breadcrumbs have in common: thin out every task vector, then combine them.

A method of this family says how one task vector is thinned out (a `Sparsifier`), and whether signs are elected.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tasks.arithmetic.compiled import Elements, as_elements, subtract
from tasks.arithmetic.consensus import agreeing_sum, plain_sum
from tasks.arithmetic.linear import accumulation_dtype, check_equal_shapes
from tasks.arithmetic.method import Parameter, TensorInputs
from tasks.arithmetic.native import is_known, sum_rounded
from tasks.arithmetic.scratch import PIECE_ELEMENTS, SCRATCH

LAMBDA = Parameter("lambda", "merge", 1.0, "Factor of the merged task vector.")
DENSITY = Parameter("density", "candidate", 1.0, "Share of a task vector's elements that is kept.", low=0, high=1)
RESCALE = Parameter("rescale", "merge", True, "Divide what is kept by its probability of being kept.")


def normalize(default: bool) -> Parameter:
    """The switch that all methods of the family have; its default differs."""
    return Parameter("normalize", "merge", default, "Divide by the sum of the weights that count.")


class Sparsifier(Protocol):
    """Thins out the task vectors of one tensor. Candidates go by their index in the tensor's inputs."""

    n_passes: int
    """As a formula's; where there are any, `sparsify` is called in order of position."""
    whole_rows: bool
    """Whether it works on whole rows."""
    observed: list[int]
    """Candidates that it must observe."""
    scales: list[float]
    """One per candidate: a factor that belongs to its task vector once it is thinned out."""

    def observe(self, number: int, candidate: int, elements: Elements, base: Elements) -> None:
        """Take note of the next part of a task vector, elements - base, in pass `number`."""
        ...

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 into elements of a part of a task vector, in place; `first` is the position of the part."""
        ...


class SparsifiedMerge:
    """general (or base) + lambda x combination of weight x thinned out (candidate - base)."""

    def __init__(self, inputs: TensorInputs, sparsifier: Sparsifier, elect_signs: bool):
        self.n_passes = sparsifier.n_passes
        self.whole_rows = sparsifier.whole_rows
        self._sparsifier = sparsifier
        self._elect_signs = elect_signs
        self._normalize = bool(inputs.parameters["normalize"])
        self._scale = float(inputs.parameters["lambda"])
        self._general = inputs.general
        self._skills = task_vectors_of(inputs)
        self._weights = [inputs.weights[index] for index in self._skills]
        self._coefficients = [inputs.weights[index] * sparsifier.scales[index] for index in self._skills]
        if self._normalize and not elect_signs:
            divisor = sum(map(abs, self._weights))
            self._coefficients = [coefficient / divisor for coefficient in self._coefficients]
        row = inputs.shape[-1] if inputs.shape else 1
        self._piece = max(1, PIECE_ELEMENTS // row) * row if self.whole_rows else PIECE_ELEMENTS
        self._next = 0

    def observe(self, number: int, first: int, base: Tensor | None, candidates: Sequence[Tensor]) -> None:
        """Show the sparsifier the task vectors of a block."""
        tensors = [_checked(base, candidates), *candidates]
        origin, *elements = as_elements(tensors, accumulation_dtype(tensors))
        for candidate in self._sparsifier.observed:
            self._sparsifier.observe(number, candidate, elements[candidate], origin)

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """A block of the result, in `out`.

        Raises:
            ValueError: there is no base, shapes differ, or a block is left out where ties are kept by position.
        """
        start_from = self._starting_point(base, candidates)
        for start, total in self._totals(first, base, candidates):
            stop = start + len(total)
            reference = SCRATCH.vector("base", len(total), total.dtype).copy_(start_from[start:stop])
            torch.add(reference, total, alpha=self._scale, out=out[start:stop])
        return out

    def combine_rounded(
        self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor
    ) -> bool | None:
        """The same with its last steps in one pass; see `tasks.arithmetic.native`."""
        start_from = self._starting_point(base, candidates)
        if not is_known([_checked(base, candidates), *candidates, out]):
            return None
        is_finite = True
        for start, total in self._totals(first, base, candidates):
            stop = start + len(total)
            added = [start_from[start:stop], total]
            is_finite &= bool(sum_rounded(added, [1.0, self._scale], out[start:stop]))
        return is_finite

    def _starting_point(self, base: Tensor | None, candidates: Sequence[Tensor]) -> Tensor:
        """What the combination is added to: the general model's block, or the base's."""
        return _checked(base, candidates) if self._general is None else candidates[self._general]

    def _totals(self, first: int, base: Tensor | None, candidates: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """The combination of thinned out task vectors, piece by piece: where each begins in the block, and (n,) of it.

        Raises:
            ValueError: a block is left out where ties are kept by position.
        """
        if self.n_passes and first != self._next:
            raise ValueError(f"blocks must be combined in order; expected element {self._next}, found {first}")
        for start, vectors in self._task_vectors(base, candidates, self._skills):
            for candidate, vector in zip(self._skills, vectors, strict=True):
                self._sparsifier.sparsify(candidate, first + start, vector)
            yield start, self._combine(vectors)
        if self.n_passes:
            self._next = first + len(_checked(base, candidates))

    def _combine(self, vectors: Tensor) -> Tensor:
        """The combination of thinned out task vectors: (k, n) to (n,)."""
        total = SCRATCH.vector("total", vectors.shape[1], vectors.dtype)
        if not self._elect_signs or not len(vectors):
            return plain_sum(vectors, self._coefficients, total)
        return agreeing_sum(vectors, self._coefficients, self._weights, self._normalize, total)

    def _task_vectors(
        self, base: Tensor | None, candidates: Sequence[Tensor], chosen: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """The block in pieces: where each begins, and the chosen candidates minus the base.

        Yields:
            The start, and (chosen, n) in the precision of the sum, in memory that the next piece uses again.
        """
        tensors = [_checked(base, candidates), *(candidates[index] for index in chosen)]
        # General counts for the dtype also where it is not among the chosen.
        dtype = accumulation_dtype([tensors[0], *candidates])
        for start in range(0, len(tensors[0]), self._piece):
            parts = [tensor[start : start + self._piece] for tensor in tensors]
            n_elements = len(parts[0])
            vectors = SCRATCH.vector("task vectors", len(chosen) * n_elements, dtype).view(len(chosen), n_elements)
            origin, *elements = as_elements(parts, dtype)
            for each, vector in zip(elements, vectors, strict=True):
                subtract(each, origin, vector.numpy())
            yield start, vectors


def _checked(base: Tensor | None, candidates: Sequence[Tensor]) -> Tensor:
    """The base's block.

    Raises:
        ValueError: there is none, or shapes differ.
    """
    if base is None:
        raise ValueError("methods on task vectors need the base's tensors")
    check_equal_shapes([base, *candidates])
    return base


def task_vectors_of(inputs: TensorInputs) -> list[int]:
    """Candidates whose task vectors count: all but the general one, and those of weight 0."""
    return [index for index, weight in enumerate(inputs.weights) if weight != 0 and index != inputs.general]


def densities(inputs: TensorInputs) -> list[float]:
    """Density of every candidate."""
    return [float(parameters["density"]) for parameters in inputs.of_candidates]


def n_kept(density: float, n_elements: int) -> int:
    """How many elements a density keeps: the share, rounded down, as the field does."""
    return int(density * n_elements)
