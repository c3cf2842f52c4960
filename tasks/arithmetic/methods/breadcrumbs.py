"""Model Breadcrumbs: leave out the largest changes and the smallest, and add up the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.arithmetic.method import Formula, Method, Parameter, TensorInputs
from tasks.arithmetic.native_thinning import Thinning, keep_by_size, keep_none
from tasks.arithmetic.scratch import SCRATCH
from tasks.arithmetic.sparsified import (
    DENSITY,
    LAMBDA,
    SparsifiedMerge,
    SparsifierBySize,
    densities,
    n_kept,
    normalize,
    task_vectors_of,
)

if TYPE_CHECKING:
    from torch import Tensor

GAMMA = Parameter(
    "gamma", "candidate", 0.01, "Share of a task vector's elements that is left out as too large.", low=0, high=1
)


class KeepMiddle(SparsifierBySize):
    """Keeps the elements of a task vector whose magnitudes are neither among the largest nor among the smallest.

    Density says how many are kept. Gamma of all are left out as the largest, but no more than density leaves room for.
    """

    def __init__(self, inputs: TensorInputs):
        n_elements = inputs.n_elements
        self._n_elements = n_elements
        self._windows = [
            _window(n_kept(density, n_elements), n_kept(float(parameters["gamma"]), n_elements), n_elements)
            for density, parameters in zip(densities(inputs), inputs.of_candidates, strict=True)
        ]
        counted = task_vectors_of(inputs)
        super().__init__(
            [
                [count for count in window if 0 < count < n_elements]
                if index in counted and window[0] < window[1]
                else []
                for index, window in enumerate(self._windows)
            ],
            n_elements,
        )

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 where an element is too large or too small."""
        too_large, large_enough = self._windows[candidate]
        if too_large == large_enough:
            vector.zero_()
        if candidate not in self._largest:
            return
        largest = self._largest[candidate]
        top = SCRATCH.vector("top", len(vector), vector.dtype).copy_(vector)
        # Before the vector loses elements that may equal those at the upper cut.
        if too_large:
            largest.keep(top, 0)
        if large_enough < self._n_elements:
            largest.keep(vector, 1 if too_large else 0)
        if too_large:
            # x - x or x - 0.
            vector.sub_(top)

    def thinning(self, candidate: int, first: int, n_elements: int) -> Thinning | None:
        """The same for the library in C."""
        too_large, large_enough = self._windows[candidate]
        if candidate not in self._largest:
            return keep_none() if too_large == large_enough else Thinning()
        if candidate not in self._thinnings:
            largest = self._largest[candidate]
            least = largest.limit(1 if too_large else 0) if large_enough < self._n_elements else None
            self._thinnings[candidate] = keep_by_size(least, largest.limit(0) if too_large else None)
        return self._thinnings[candidate]


def _window(n_wanted: int, n_largest: int, n_elements: int) -> tuple[int, int]:
    """How many elements are too large, and how many are too large or kept."""
    too_large = min(n_largest, n_elements - n_wanted)
    return too_large, too_large + n_wanted


def breadcrumbs(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, KeepMiddle(inputs), elect_signs=False)


METHOD = Method(
    name="breadcrumbs",
    description="Task vectors without their largest and smallest changes, added up.",
    source="Model Breadcrumbs, https://arxiv.org/abs/2312.06795",
    formula=breadcrumbs,
    parameters=(LAMBDA, normalize(False), DENSITY, GAMMA),
    base="needed",
    skips_zero=True,
)
