"""Weighted average: model soups, LM-Cocktail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.method import Elementwise, Method, TensorInputs
from tasks.arithmetic.native import sum_rounded

if TYPE_CHECKING:
    from torch import Tensor


class Linear(Elementwise):
    """Sum of weight x candidate."""

    def __init__(self, inputs: TensorInputs):
        self._weights = inputs.weights

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """The weighted sum of a block; see `tasks.arithmetic.linear`."""
        return weighted_sum(candidates, self._weights, out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The same in one pass; see `tasks.arithmetic.native`."""
        return sum_rounded(candidates, self._weights, out)


METHOD = Method(
    name="linear",
    description="Weighted average of the candidates.",
    source="LM-Cocktail, https://arxiv.org/abs/2311.13534; model soups, https://arxiv.org/abs/2203.05482",
    formula=Linear,
    weights="sum to 1",
    skips_zero=True,
    on_device=True,
)
