"""Task arithmetic: what training changed, added to another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.block import AnyNumbers, Numbers
from tasks.arithmetic.method import Elementwise, Method, Parameter, TensorInputs
from tasks.arithmetic.native import add_task_vectors_rounded, sum_rounded
from tasks.arithmetic.task_vectors import add_task_vectors

if TYPE_CHECKING:
    from torch import Tensor


class TaskArithmetic(Elementwise):
    """general + lambda x sum of weight x (skill - base)."""

    def __init__(self, inputs: TensorInputs):
        self._general = inputs.general
        self._scale = float(inputs.parameters["lambda"])
        omegas = dict(enumerate(inputs.weights))
        self._skills = [
            index for index, omega in omegas.items() if index != inputs.general and self._scale * omega != 0
        ]
        self._omegas = [omegas[index] for index in self._skills]

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """A block of the result; see `tasks.arithmetic.task_vectors`."""
        general, base, skills = self._take(base, candidates)
        if not skills:
            # Bit by bit: adding zero would make 0.0 of -0.0.
            return out.copy_(general)
        return add_task_vectors(general, base, skills, self._omegas, self._scale, out)

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The same in one pass; see `tasks.arithmetic.native`."""
        general, base, skills = self._take(base, candidates)
        if not skills:
            return sum_rounded([general], [1.0], out)
        return add_task_vectors_rounded(general, base, skills, self._omegas, self._scale, out)

    def _take(
        self, base: AnyNumbers | None, candidates: Sequence[AnyNumbers]
    ) -> tuple[AnyNumbers, AnyNumbers, list[AnyNumbers]]:
        """The general model, the base and the skills."""
        if base is None:
            raise ValueError("task_arithmetic needs the base's tensors")
        general = base if self._general is None else candidates[self._general]
        return general, base, [candidates[index] for index in self._skills]


METHOD = Method(
    name="task_arithmetic",
    description="The general model (or the base) plus the weighted task vectors of the skills.",
    source="https://arxiv.org/abs/2212.04089; Merge to Learn, https://arxiv.org/abs/2410.12937",
    formula=TaskArithmetic,
    parameters=(Parameter("lambda", "merge", 1.0, "Factor of the sum of task vectors."),),
    base="needed",
    skips_zero=True,
    on_device=True,
)
