"""DARE, then TIES' sign election: drop changes at random, rescale, and add up what agrees with the elected sign."""

from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.methods.dare_linear import DropAtRandom
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, RESCALE, SparsifiedMerge, normalize


def dare_ties(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, DropAtRandom(inputs), elect_signs=True)


METHOD = Method(
    name="dare_ties",
    description="Task vectors thinned out at random and rescaled, added up where they agree with the elected sign.",
    source="DARE, https://arxiv.org/abs/2311.03099; TIES-Merging, https://arxiv.org/abs/2306.01708",
    formula=dare_ties,
    parameters=(LAMBDA, normalize(False), RESCALE, DENSITY),
    base="needed",
    skips_zero=True,
)
