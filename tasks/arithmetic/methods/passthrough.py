"""Passthrough: one model as it is, or scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.method import Elementwise, Method, Parameter, TensorInputs
from tasks.arithmetic.native import sum_rounded

if TYPE_CHECKING:
    from torch import Tensor


class Passthrough(Elementwise):
    """scale x candidate; bit by bit where scale is 1."""

    def __init__(self, inputs: TensorInputs):
        self._scale = float(inputs.of_candidates[0]["scale"])

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """A block of the result, rounded once in the dtype of `out` after the scale itself was."""
        return weighted_sum(candidates, [self._scale], out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The same in one pass; see `tasks.arithmetic.native`."""
        return sum_rounded(candidates, [self._scale], out)


METHOD = Method(
    name="passthrough",
    description="One candidate's tensors unchanged, or scaled.",
    source="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    formula=Passthrough,
    parameters=(Parameter("scale", "candidate", 1.0, "Factor of the candidate's tensors."),),
    n_candidates=(1, 1),
    weights="unused",
    on_device=True,
)
