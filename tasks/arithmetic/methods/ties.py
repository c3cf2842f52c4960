"""TIES: keep the largest changes, elect a sign for every parameter, average what agrees with it."""

from torch import Tensor

from tasks.arithmetic.compiled import Elements
from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.selection import LargestMagnitudes
from tasks.arithmetic.sparsified import (
    DENSITY,
    LAMBDA,
    SparsifiedMerge,
    densities,
    n_kept,
    normalize,
    task_vectors_of,
)


class KeepLargest:
    """Keeps the elements of largest magnitude of a task vector, over the whole tensor."""

    whole_rows = False

    def __init__(self, inputs: TensorInputs):
        self._counts = [n_kept(density, inputs.n_elements) for density in densities(inputs)]
        self._largest = {
            index: LargestMagnitudes([self._counts[index]])
            for index in task_vectors_of(inputs)
            if 0 < self._counts[index] < inputs.n_elements
        }
        self.scales = [1.0] * len(self._counts)
        self.observed = list(self._largest)
        self.n_passes = LargestMagnitudes.N_PASSES if self._largest else 0

    def observe(self, number: int, candidate: int, elements: Elements, base: Elements) -> None:
        """Count magnitudes."""
        self._largest[candidate].observe(number, elements, base)

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 where an element is not among the largest."""
        if candidate in self._largest:
            self._largest[candidate].keep(vector)
        elif self._counts[candidate] == 0:
            vector.zero_()


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
