"""TIES: keep the largest changes, elect a sign for every parameter, average what agrees with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.native_thinning import Thinning, keep_by_size, keep_none
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


class KeepLargest(SparsifierBySize):
    """Keeps the elements of largest magnitude of a task vector, over the whole tensor."""

    def __init__(self, inputs: TensorInputs):
        self._counts = [n_kept(density, inputs.n_elements) for density in densities(inputs)]
        counted = task_vectors_of(inputs)
        super().__init__(
            [
                [count] if index in counted and 0 < count < inputs.n_elements else []
                for index, count in enumerate(self._counts)
            ],
            inputs.n_elements,
        )

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 where an element is not among the largest."""
        if candidate in self._largest:
            self._largest[candidate].keep(vector)
        elif self._counts[candidate] == 0:
            vector.zero_()

    def thinning(self, candidate: int, first: int, n_elements: int) -> Thinning | None:
        """The same for the library in C."""
        if candidate not in self._largest:
            return Thinning() if self._counts[candidate] else keep_none()
        if candidate not in self._thinnings:
            self._thinnings[candidate] = keep_by_size(self._largest[candidate].limit())
        return self._thinnings[candidate]


def ties(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, KeepLargest(inputs), elect_signs=True)


METHOD = Method(
    name="ties",
    description="Task vectors trimmed to their largest changes, averaged where they agree with the elected sign.",
    source="TIES-Merging, https://arxiv.org/abs/2306.01708",
    formula=ties,
    parameters=(LAMBDA, normalize(True), DENSITY),
    base="needed",
    skips_zero=True,
)
