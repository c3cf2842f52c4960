"""DELLA without the election: drop changes at random, small ones more often, rescale, and add up."""

from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.methods.della import EPSILON, DropBySize
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, RESCALE, SparsifiedMerge, normalize


def della_linear(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, DropBySize(inputs), elect_signs=False)


METHOD = Method(
    name="della_linear",
    description="Task vectors thinned out at random, small changes first, then added up.",
    source="DELLA-Merging, https://arxiv.org/abs/2406.11617",
    formula=della_linear,
    parameters=(LAMBDA, normalize(False), RESCALE, DENSITY, EPSILON),
    base="needed",
    skips_zero=True,
)
