"""Model Breadcrumbs with TIES' sign election: leave out the largest and smallest changes, add up what agrees."""

from tasks.arithmetic.method import Formula, Method, TensorInputs
from tasks.arithmetic.methods.breadcrumbs import GAMMA, KeepMiddle
from tasks.arithmetic.sparsified import DENSITY, LAMBDA, SparsifiedMerge, normalize


def breadcrumbs_ties(inputs: TensorInputs) -> Formula:
    """The formula of one tensor."""
    return SparsifiedMerge(inputs, KeepMiddle(inputs), elect_signs=True)


METHOD = Method(
    name="breadcrumbs_ties",
    description="Task vectors without their largest and smallest changes, added up where they agree in sign.",
    source="Model Breadcrumbs, https://arxiv.org/abs/2312.06795; TIES-Merging, https://arxiv.org/abs/2306.01708",
    formula=breadcrumbs_ties,
    parameters=(LAMBDA, normalize(False), DENSITY, GAMMA),
    base="needed",
    skips_zero=True,
)
