"""Model Stock: from the base towards the mean of its fine-tunes, as far as the angle between them says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from tasks.arithmetic.block import AnyNumbers, Numbers
from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.method import Elementwise, Formula, Method, Parameter, TensorInputs
from tasks.arithmetic.native import add_task_vectors_rounded, sum_rounded
from tasks.arithmetic.reductions import Array, in_float64, row_dot_products
from tasks.arithmetic.task_vectors import add_task_vectors

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


def make_model_stock(inputs: TensorInputs) -> Formula:
    """The formula by tensor, or by row where `filter_wise` says so and the tensor has rows."""
    if inputs.parameters["filter_wise"] and len(inputs.shape) > 1:
        return _ByRow(inputs.shape[-1])
    return _ByTensor(len(inputs.weights))


def stock_ratio(mean_cosine: float, n_candidates: int) -> float:
    """t = N cos / (1 + (N - 1) cos): the way from the base (0) to the mean of N fine-tunes (1).

    0 where the cosine is not positive: task vectors that do not share a direction say nothing of where the centre of
    all fine-tunes lies, and the formula would lead away from their mean, without limit as cos nears -1 / (N - 1).

    Args:
        mean_cosine: Of the angles between all pairs of task vectors; a pair with a zero vector counts as 0.
        n_candidates: N, 2 or more.

    Source: Model Stock, https://arxiv.org/abs/2403.19522
    """
    if mean_cosine <= 0:
        return 0.0
    return min(1.0, n_candidates * mean_cosine / (1 + (n_candidates - 1) * mean_cosine))


class _ByTensor:
    """One ratio for the tensor."""

    n_passes = 1
    whole_rows = False

    def __init__(self, n_candidates: int):
        self._products = DotProducts(n_candidates)
        self._pairs = list(combinations(range(n_candidates), 2))
        self._share: float | None = None

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        self._products.add(candidates, _needed(base))

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        start, share = _needed(base), self._find_share(len(candidates))
        if share == 0:
            # Bit by bit: adding zero would make 0.0 of -0.0.
            return out.copy_(start)
        return add_task_vectors(start, start, candidates, [1.0] * len(candidates), share, out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        start, share = _needed(base), self._find_share(len(candidates))
        if share == 0:
            return sum_rounded([start], [1.0], out)
        return add_task_vectors_rounded(start, start, candidates, [1.0] * len(candidates), share, out)

    def _find_share(self, n_candidates: int) -> float:
        """What each task vector counts for: t / N."""
        if self._share is None:
            products, cosines = self._products, 0.0
            for left, right in self._pairs:
                lengths = products.norm(left) * products.norm(right)
                cosines += products.dot(left, right) / lengths if lengths else 0.0
            self._share = stock_ratio(cosines / len(self._pairs), n_candidates) / n_candidates
        return self._share


class _ByRow(Elementwise):
    """One ratio for each row, which is whole in its block, so that no pass is needed."""

    whole_rows = True

    def __init__(self, n_columns: int):
        self._n_columns = n_columns

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        start = _needed(base)
        rows = [vector.reshape(-1, self._n_columns) for vector in in_float64(candidates, start)]
        shares = [stock_ratio(cosine, len(rows)) / len(rows) for cosine in _mean_cosines(rows).tolist()]
        total = rows[0]
        for row in rows[1:]:
            np.add(total, row, out=total)
        np.multiply(total, np.array(shares)[:, None], out=total)
        return out.copy_(torch.as_tensor(total.reshape(-1)).add_(start))


def _mean_cosines(rows: Sequence[Array]) -> Array:
    """(rows,): the mean over all pairs of matrices of the cosine between their rows; 0 for a zero row."""
    norms = [np.sqrt(row_dot_products(each, each)) for each in rows]
    pairs = list(combinations(range(len(rows)), 2))
    total = np.zeros(len(rows[0]))
    for left, right in pairs:
        lengths = norms[left] * norms[right]
        dots = row_dot_products(rows[left], rows[right])
        total += np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return total / len(pairs)


def _needed(base: AnyNumbers | None) -> AnyNumbers:
    if base is None:
        raise ValueError("model_stock needs the base's tensors")
    return base


METHOD = Method(
    name="model_stock",
    description="From the base towards the mean of its fine-tunes, as far as the angle between them says.",
    source="https://arxiv.org/abs/2403.19522",
    formula=make_model_stock,
    parameters=(Parameter("filter_wise", "merge", False, "Compute the angle for each row, not for each tensor."),),
    base="needed",
    n_candidates=(2, None),
    weights="unused",
)
