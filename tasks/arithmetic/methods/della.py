"""DELLA: drop changes at random, small ones more often than large ones, rescale, and average by elected sign."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.method import Formula, Method, Parameter, TensorInputs
from tasks.arithmetic.native_thinning import Thinning, keep_by_rank, keep_none
from tasks.arithmetic.random_masks import PositionalNumbers, as_chance
from tasks.arithmetic.row_ranks import by_rank
from tasks.arithmetic.scratch import SCRATCH
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, RESCALE, SparsifiedMerge, Sparsifier, densities, normalize

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = Parameter(
    "epsilon",
    "candidate",
    0.15,
    "Elements are kept with a probability from density - epsilon (smallest of its row) to density + epsilon.",
    low=0,
    high=0.5,
)


class DropBySize(Sparsifier):
    """Keeps each element of a task vector with a probability that grows with the rank of its magnitude in its row.

    The probability rises linearly from density - epsilon for the smallest to density + epsilon for the largest; what
    is kept is divided by it. Equal magnitudes, of which models in bfloat16 have many, have the mean of their ranks, so
    that none is preferred for its place. Rows are those of the last dimension; a row of one element has its density.
    Density 1 keeps everything and density 0 nothing, whatever epsilon is.
    """

    whole_rows = True

    def __init__(self, inputs: TensorInputs):
        self._densities = densities(inputs)
        self.scales = [1.0] * len(self._densities)
        self._rescale = bool(inputs.parameters["rescale"])
        self._length = inputs.shape[-1] if inputs.shape else 1
        self.row = self._length
        names = inputs.candidates or tuple(map(str, range(len(inputs.weights))))
        self._numbers = [PositionalNumbers(inputs.seed, inputs.name, name) for name in names]
        self._epsilons = [float(parameters["epsilon"]) for parameters in inputs.of_candidates]
        _check_probabilities(names, self._densities, self._epsilons)

    def sparsify(self, candidate: int, first: int, vector: Tensor) -> None:
        """Put 0 into what is dropped, and rescale the rest; the part holds whole rows."""
        density = self._densities[candidate]
        if density == 0:
            vector.zero_()
        elif density < 1:
            by_size = keep_chances(density, self._epsilons[candidate], self._length)
            chances = SCRATCH.array("chances", len(vector), np.int32)
            by_rank(vector, self._length, by_size, chances)
            self._numbers[candidate].keep_each(first, vector, chances, self._rescale)

    def thinning(self, candidate: int, first: int, n_elements: int) -> Thinning | None:
        """The same for the library in C."""
        density = self._densities[candidate]
        if density in (0, 1):
            return Thinning() if density else keep_none()
        key = self._numbers[candidate].key_of(first, n_elements)
        by_size = keep_chances(density, self._epsilons[candidate], self._length)
        return keep_by_rank(key, by_size, self._rescale) if key else None


# Not kept by the formula: there is one for every tensor, all of them at once.
@lru_cache(maxsize=16)
def keep_chances(density: float, epsilon: float, length: int) -> NDArray[np.int32]:
    """Probabilities of being kept, from the smallest to the largest element of a row.

    Returns:
        (2 length + 1,) in units of 2**-31, as `by_rank` takes them: at 1 + twice the rank, counted from 0; at
        least 1, so that one can divide by it.
    """
    if length == 1:
        return np.full(3, max(1, as_chance(density)), np.int32)
    probabilities = np.arange(-1, 2 * length) * (epsilon / (length - 1)) + (density - epsilon)
    return np.clip(np.rint(probabilities * 2.0**31), 1, 2**31 - 1).astype(np.int32)


def della(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, DropBySize(inputs), elect_signs=True)


def _check_probabilities(names: Sequence[str], densities: Sequence[float], epsilons: Sequence[float]) -> None:
    """Refuse what gives no probabilities.

    Raises:
        ValueError: density - epsilon is below 0 or density + epsilon above 1.
    """
    broken = [
        f"{name} ({density:g} - {epsilon:g} to {density:g} + {epsilon:g})"
        for name, density, epsilon in zip(names, densities, epsilons, strict=True)
        if 0 < density < 1 and not (density - epsilon >= 0 and density + epsilon <= 1)
    ]
    if broken:
        raise ValueError(
            "density - epsilon to density + epsilon must lie between 0 and 1; these do not: "
            f"{', '.join(broken)}; choose a smaller epsilon"
        )


METHOD = Method(
    name="della",
    description="Task vectors thinned out at random, small changes first, averaged where they agree in sign.",
    source="DELLA-Merging, https://arxiv.org/abs/2406.11617",
    formula=della,
    parameters=(LAMBDA, normalize(True), RESCALE, DENSITY, EPSILON),
    base="needed",
    skips_zero=True,
)
