"""Slerp: along the arc from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.block import AnyNumbers, Numbers
from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.method import Method, Parameter, TensorInputs
from tasks.arithmetic.native import sum_rounded
from tasks.arithmetic.spherical import slerp_coefficients

if TYPE_CHECKING:
    from torch import Tensor


class Slerp:
    """c x first + d x second, each tensor taken as one vector; see `slerp_coefficients`.

    Two candidates: from the first to the second, whatever the base. One candidate: from the base to it. Where t is 0
    or 1 the tensor is copied bit by bit. Elsewhere the result lies within 2 eps x (|c x| + |d y|) of the formula, eps
    being that of the dtype of `out`, and nothing depends on how the tensor was cut into blocks.
    """

    whole_rows = False

    def __init__(self, inputs: TensorInputs):
        self._t = float(inputs.parameters["t"])
        self.n_passes = 0 if self._t in (0, 1) else 1
        self._products = DotProducts(2)
        self._coefficients: tuple[float, float] | None = (1 - self._t, self._t) if self.n_passes == 0 else None

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        """Add to the products that tell the angle."""
        self._products.add(_ends(base, candidates))

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """A block of the result."""
        return weighted_sum(*self._counted(base, candidates), out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The same in one pass; see `tasks.arithmetic.native`."""
        return sum_rounded(*self._counted(base, candidates), out)

    def _counted(
        self, base: AnyNumbers | None, candidates: Sequence[AnyNumbers]
    ) -> tuple[list[AnyNumbers], list[float]]:
        """The blocks of the ends that count, and their coefficients."""
        if self._coefficients is None:
            dot = self._products.dot
            self._coefficients = slerp_coefficients(dot(0, 0), dot(0, 1), dot(1, 1), self._t)
        # Without the end that counts for nothing: adding zero would make 0.0 of -0.0.
        counted = [each for each in zip(_ends(base, candidates), self._coefficients, strict=True) if each[1] != 0]
        return [end for end, _ in counted], [coefficient for _, coefficient in counted]


def _ends(base: AnyNumbers | None, candidates: Sequence[AnyNumbers]) -> Sequence[AnyNumbers]:
    """The two blocks between which to interpolate.

    Raises:
        ValueError: there is one candidate and no base.
    """
    if len(candidates) == 2:
        return candidates
    if base is None:
        raise ValueError("slerp with one candidate needs the base's tensors")
    return [base, *candidates]


METHOD = Method(
    name="slerp",
    description="Spherical interpolation between the base and one candidate, or between two candidates.",
    source="K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    formula=Slerp,
    # Halfway prefers neither model.
    parameters=(Parameter("t", "merge", 0.5, "Way from the base or first candidate (0) to the other (1).", 0.0, 1.0),),
    base="optional",
    base_read_up_to=1,
    n_candidates=(1, 2),
    weights="unused",
)
