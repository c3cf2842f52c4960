"""NuSLERP: slerp of two models, or of what training changed in them, by tensor, row or column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.method import Elementwise, Formula, Method, Parameter, TensorInputs
from tasks.arithmetic.native import add_task_vectors_rounded, sum_rounded
from tasks.arithmetic.reductions import Array, ColumnDotProducts, in_float64, row_dot_products
from tasks.arithmetic.spherical import slerp_coefficients
from tasks.arithmetic.task_vectors import add_task_vectors

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


def make_nuslerp(inputs: TensorInputs) -> Formula:
    """The formula as the switches say: by default each tensor is one vector, or else each row or each column is.

    With the base's tensors what is interpolated are the task vectors, and the result is added to the base. Tensors of
    fewer than two dimensions are one vector; a column runs along the first dimension, a row along the last, as mergekit
    documents it (its version 0.1.5 takes one for the other). For when a line replaces the arc see `slerp_coefficients`.
    Rows and columns are computed in float64 and rounded once; a tensor as a whole is, as in slerp, within 2 eps of the
    sum of its terms' sizes.

    Raises:
        ValueError: a weight is negative, both are 0, or rows are asked for but the whole tensor, too.
    """
    first, second = inputs.weights
    if first < 0 or second < 0 or first + second == 0:
        raise ValueError(
            f"tensor {inputs.name!r}: nuslerp needs two weights that are 0 or more and not both 0, for their ratio; "
            f"found {first:g} and {second:g}"
        )
    t = second / (first + second)
    flatten, by_row = bool(inputs.parameters["nuslerp_flatten"]), bool(inputs.parameters["nuslerp_row_wise"])
    if flatten and by_row:
        raise ValueError("nuslerp_row_wise means nothing while nuslerp_flatten is true; set nuslerp_flatten: false")
    n_columns = math.prod(inputs.shape[1:])
    if t in (0, 1):
        return _OneEnd(int(t))
    if flatten or n_columns == 1 or len(inputs.shape) < 2:
        return _ByTensor(t)
    return _ByRow(t, inputs.shape[-1]) if by_row else _ByColumn(t, n_columns)


class _OneEnd(Elementwise):
    """One of the candidates bit by bit, as the other's weight is 0."""

    def __init__(self, index: int):
        self._index = index

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        return out.copy_(candidates[self._index])

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        return sum_rounded([candidates[self._index]], [1.0], out)


class _ByTensor:
    """Two factors for the whole tensor."""

    n_passes = 1
    whole_rows = False

    def __init__(self, t: float):
        self._t = t
        self._products = DotProducts(2)
        self._coefficients: tuple[float, float] | None = None

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        self._products.add(candidates, base)

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        if base is None:
            return weighted_sum(candidates, self._find_coefficients(), out)
        return add_task_vectors(base, base, candidates, self._find_coefficients(), out=out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        if base is None:
            return sum_rounded(candidates, self._find_coefficients(), out)
        return add_task_vectors_rounded(base, base, candidates, self._find_coefficients(), 1.0, out)

    def _find_coefficients(self) -> tuple[float, float]:
        if self._coefficients is None:
            dot = self._products.dot
            self._coefficients = slerp_coefficients(dot(0, 0), dot(0, 1), dot(1, 1), self._t)
        return self._coefficients


class _ByRow(Elementwise):
    """Two factors for each row, which is whole in its block, so that no pass is needed."""

    whole_rows = True

    def __init__(self, t: float, n_columns: int):
        self._t = t
        self._n_columns = n_columns

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        rows = [vector.reshape(-1, self._n_columns) for vector in in_float64(candidates, base)]
        x, y = rows
        factors = _factors(row_dot_products(x, x), row_dot_products(x, y), row_dot_products(y, y), self._t)
        return _add_scaled(rows, [each[:, None] for each in factors], base, out)


class _ByColumn:
    """Two factors for each column, in float64."""

    n_passes = 1
    whole_rows = False

    def __init__(self, t: float, n_columns: int):
        self._t = t
        self._n_columns = n_columns
        self._products = ColumnDotProducts(2, n_columns)
        self._factors: tuple[Array, Array] | None = None

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        self._products.add(first, in_float64(candidates, base))

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        if self._factors is None:
            dot = self._products.dot
            self._factors = _factors(dot(0, 0), dot(0, 1), dot(1, 1), self._t)
        n_elements, column = len(out), first % self._n_columns
        factors = [np.resize(np.roll(each, -column), n_elements) for each in self._factors]
        return _add_scaled(in_float64(candidates, base), factors, base, out)


def _factors(first_squared: Array, dot: Array, second_squared: Array, t: float) -> tuple[Array, Array]:
    """`slerp_coefficients` of each line. One by one: numpy's sines differ with the width of the processor's vectors."""
    lines = zip(first_squared.tolist(), dot.tolist(), second_squared.tolist(), strict=True)
    factors = np.array([slerp_coefficients(*products, t) for products in lines])
    return factors[:, 0], factors[:, 1]


def _add_scaled(vectors: Sequence[Array], factors: Sequence[Array], base: Tensor | None, out: Tensor) -> Tensor:
    """base + factor x vector + factor x vector, in float64, rounded once into `out`."""
    scaled = [vector * factor for vector, factor in zip(vectors, factors, strict=True)]
    total = torch.as_tensor(np.add(*scaled).reshape(-1))
    return out.copy_(total if base is None else total.add_(base))


METHOD = Method(
    name="nuslerp",
    description="Spherical interpolation of two candidates, or of their task vectors where there is a base.",
    source="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md; K. Shoemake, SIGGRAPH 1985",
    formula=make_nuslerp,
    parameters=(
        Parameter("nuslerp_flatten", "merge", True, "Take each tensor as one vector."),
        Parameter("nuslerp_row_wise", "merge", False, "Without nuslerp_flatten: take each row, not each column."),
    ),
    base="optional",
    n_candidates=(2, 2),
)
