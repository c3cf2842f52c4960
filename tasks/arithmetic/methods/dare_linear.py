"""DARE: drop changes at random, make up for them by rescaling the others, and add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.native_thinning import Thinning, keep_at_random
from tasks.arithmetic.random_masks import PositionalNumbers, as_chance
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, RESCALE, SparsifiedMerge, Sparsifier, densities, normalize

if TYPE_CHECKING:
    from torch import Tensor


class DropAtRandom(Sparsifier):
    """Keeps each element of a task vector with the probability that is its density.

    Rescaled by 1 / density as in the paper, the mean over seeds is the task vector itself.
    """

    def __init__(self, inputs: TensorInputs):
        self._densities = densities(inputs)
        names = inputs.candidates or tuple(map(str, range(len(inputs.weights))))
        self._numbers = [PositionalNumbers(inputs.seed, inputs.name, name) for name in names]
        rescale = bool(inputs.parameters["rescale"])
        self.scales = [1 / density if rescale and density > 0 else 1.0 for density in self._densities]

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 into what is dropped."""
        density = self._densities[candidate]
        if density < 1:
            self._numbers[candidate].keep(first, vector, as_chance(density))

    def thinning(self, candidate: int, first: int, n_elements: int) -> Thinning | None:
        """The same for the library in C."""
        density = self._densities[candidate]
        if density == 1:
            return Thinning()
        key = self._numbers[candidate].key_of(first, n_elements)
        return keep_at_random(key, as_chance(density)) if key else None


def dare_linear(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, DropAtRandom(inputs), elect_signs=False)


METHOD = Method(
    name="dare_linear",
    description="Task vectors thinned out at random and rescaled, then added up.",
    source="DARE, https://arxiv.org/abs/2311.03099",
    formula=dare_linear,
    parameters=(LAMBDA, normalize(False), RESCALE, DENSITY),
    base="needed",
    skips_zero=True,
)
