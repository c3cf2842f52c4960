"""DARE: drop changes at random, make up for them by rescaling the others, and add up."""

from torch import Tensor

from tasks.arithmetic.compiled import Elements
from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.random_masks import PositionalNumbers, as_chance
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, RESCALE, SparsifiedMerge, densities, normalize


class DropAtRandom:
    """Keeps each element of a task vector with the probability that is its density.

    Rescaled by 1 / density as in the paper, the mean over seeds is the task vector itself.
    """

    n_passes = 0
    whole_rows = False

    def __init__(self, inputs: TensorInputs):
        self.observed: list[int] = []
        self._densities = densities(inputs)
        names = inputs.candidates or tuple(map(str, range(len(inputs.weights))))
        self._numbers = [PositionalNumbers(inputs.seed, inputs.name, name) for name in names]
        rescale = bool(inputs.parameters["rescale"])
        self.scales = [1 / density if rescale and density > 0 else 1.0 for density in self._densities]

    def observe(self, number: int, candidate: int, elements: Elements, base: Elements) -> None:
        """Never called."""
        raise NotImplementedError("what is dropped at random depends on no other element")

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 into what is dropped."""
        density = self._densities[candidate]
        if density < 1:
            self._numbers[candidate].keep(first, vector, as_chance(density))


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
