"""What TIES, DARE, DELLA and Breadcrumbs have in common: thin out every task vector, then combine them.

A method of this family says how one task vector is thinned out (a `Sparsifier`), and whether signs are elected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic import loops
from tasks.arithmetic.block import AnyNumbers, Numbers
from tasks.arithmetic.consensus import agreeing_sum, plain_sum
from tasks.arithmetic.elements import as_elements
from tasks.arithmetic.linear import accumulation_dtype, check_equal_shapes
from tasks.arithmetic.method import Parameter, TensorInputs
from tasks.arithmetic.native_thinning import Thinning, thinned_sum_rounded
from tasks.arithmetic.scratch import PIECE_ELEMENTS, SCRATCH
from tasks.arithmetic.selection import LargestMagnitudes, observe_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

LAMBDA = Parameter("lambda", "merge", 1.0, "Factor of the merged task vector.")
DENSITY = Parameter("density", "candidate", 1.0, "Share of a task vector's elements that is kept.", low=0, high=1)
RESCALE = Parameter("rescale", "merge", True, "Divide what is kept by its probability of being kept.")


def normalize(default: bool) -> Parameter:
    """The switch that all methods of the family have; its default differs."""
    return Parameter("normalize", "merge", default, "Divide by the sum of the weights that count.")


class Sparsifier(ABC):
    """Thins out the task vectors of one tensor. Candidates go by their index in the tensor's inputs."""

    n_passes: int = 0
    """As a formula's; where there are any, `sparsify` is called in order of position."""
    whole_rows: bool = False
    """Whether it works on whole rows."""
    row: int | None = None
    """Length of a row where a `thinning` is by rank."""
    scales: list[float]
    """One per candidate: a factor that belongs to its task vector once it is thinned out."""

    def observe(self, number: int, base: Numbers, candidates: Sequence[Numbers]) -> None:
        """Take note of the next block of the task vectors, candidate - base, in pass `number`."""
        raise NotImplementedError("what is dropped depends on nothing that was to be seen before")

    def extent(self, number: int) -> int:
        """How many elements, from the first on, a pass after the first must see."""
        raise NotImplementedError("there is one pass at most")

    @abstractmethod
    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 into elements of a part of a task vector, in place; `first` is the position of the part."""

    @abstractmethod
    def thinning(self, candidate: int, first: int, n_elements: int) -> Thinning | None:
        """What `sparsify` does, for the library in C, which does a whole tensor or none of it; None where it cannot."""


class SparsifierBySize(Sparsifier):
    """Keeps elements whose magnitudes are among the largest of the tensor's, or just are not."""

    def __init__(self, counts: Sequence[Sequence[int]], n_elements: int):
        """Begin with nothing seen.

        Args:
            counts: Of each candidate the numbers k of largest elements that it must know; it is observed for any.
            n_elements: Of the tensor.
        """
        self._largest = {
            index: LargestMagnitudes(numbers, n_elements) for index, numbers in enumerate(counts) if numbers
        }
        self._thinnings: dict[int, Thinning] = {}
        self.scales = [1.0] * len(counts)
        self.n_passes = LargestMagnitudes.N_PASSES if self._largest else 0

    def observe(self, number: int, base: Numbers, candidates: Sequence[Numbers]) -> None:
        """Count magnitudes."""
        observe_all(list(self._largest.values()), number, [candidates[index] for index in self._largest], base)

    def extent(self, number: int) -> int:
        """What the pass must see for the one that must see most."""
        return max(largest.extent(number) for largest in self._largest.values())


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
        self._n_elements = inputs.n_elements
        row = inputs.shape[-1] if inputs.shape else 1
        self._piece = max(1, PIECE_ELEMENTS // row) * row if self.whole_rows else PIECE_ELEMENTS
        self._next = 0

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        """Show the sparsifier the task vectors of a block."""
        self._sparsifier.observe(number, _checked(base, candidates), candidates)

    def extent(self, number: int) -> int:
        """All in the first pass; then what the sparsifier has not counted yet."""
        return self._sparsifier.extent(number) if number else self._n_elements

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """A block of the result, in `out`.

        Raises:
            ValueError: there is no base, shapes differ, or a block is left out where ties are kept by position.
        """
        self._check_order(first)
        start_from = self._starting_point(base, candidates)
        for start, vectors in self._task_vectors(base, candidates, self._skills):
            for candidate, vector in zip(self._skills, vectors, strict=True):
                self._sparsifier.sparsify(candidate, first + start, vector)
            total = self._combine(vectors)
            stop = start + len(total)
            reference = SCRATCH.vector("base", len(total), total.dtype).copy_(start_from[start:stop])
            torch.add(reference, total, alpha=self._scale, out=out[start:stop])
        self._advance(first, out)
        return out

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The same in one pass; see `tasks.arithmetic.native_thinning`."""
        self._check_order(first)
        start_from = self._starting_point(base, candidates)
        thinnings = [self._sparsifier.thinning(candidate, first, len(out)) for candidate in self._skills]
        is_finite = thinned_sum_rounded(
            start_from, _checked(base, candidates), [candidates[candidate] for candidate in self._skills], thinnings,
            self._coefficients, self._weights if self._elect_signs else None, self._normalize, self._scale,
            first % 2**32, self._sparsifier.row, out,
        )  # fmt: skip
        if is_finite is not None:
            self._advance(first, out)
        return is_finite

    def _check_order(self, first: int) -> None:
        """Refuse a block that does not follow the one before it where ties are kept by position.

        Raises:
            ValueError: it does not.
        """
        if self.n_passes and first != self._next:
            raise ValueError(f"blocks must be combined in order; expected element {self._next}, found {first}")

    def _advance(self, first: int, out: Numbers) -> None:
        """Where order counts a tensor is the work of one thread; else several combine at once, and nothing changes."""
        if self.n_passes:
            self._next = first + len(out)

    def _starting_point(self, base: AnyNumbers | None, candidates: Sequence[AnyNumbers]) -> AnyNumbers:
        """What the combination is added to: the general model's block, or the base's."""
        return _checked(base, candidates) if self._general is None else candidates[self._general]

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
                loops.differences.subtract(each, origin, vector.numpy())
            yield start, vectors


def _checked(base: AnyNumbers | None, candidates: Sequence[AnyNumbers]) -> AnyNumbers:
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
