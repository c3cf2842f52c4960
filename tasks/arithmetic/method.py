"""What a merge method is: a name, parameters that can be set, and a formula on the blocks of one tensor.

A method is one file in `tasks/arithmetic/methods/`, named like the method, with a `METHOD` in it; nothing else has to
know of it. A formula is made anew for every tensor. It sees the tensor in consecutive blocks, first as often as it
asks to (`n_passes`), then once more to write the result, so that a tensor of any size is merged in bounded memory.

Blocks of one tensor are flat, of one length, and in the dtypes of their files. Shape legend: n elements of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    # Recipes know the names of methods, and are read where torch, which takes a second to load, is not needed.
    from torch import Tensor

    from tasks.arithmetic.block import Numbers

Number = float | bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that a recipe can set."""

    name: str
    """As in the recipe, by the field's name for it."""
    scope: Literal["merge", "candidate"]
    """merge: under `merge.parameters`. candidate: under a candidate's own `parameters`."""
    default: Number
    """A bool makes it a switch: true or false."""
    description: str
    low: float | None = None
    """Smallest value that makes sense; None for no limit."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class TensorInputs:
    """All that a formula is told of the tensor it merges; numbers are those of the tensor's depth."""

    name: str
    """Full name of the tensor."""
    shape: tuple[int, ...]
    weights: tuple[float, ...]
    """One per candidate."""
    parameters: Mapping[str, Number] = field(default_factory=dict[str, Number])
    """Of the merge, by name; all that the method has."""
    of_candidates: tuple[Mapping[str, Number], ...] = ()
    """Each candidate's own parameters, by name; all that the method has."""
    candidates: tuple[str, ...] = ()
    """Names, in the order of the blocks."""
    general: int | None = None
    """Index of the candidate with role general; None adds to the base."""
    seed: int = 0

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        n_elements = 1
        for length in self.shape:
            n_elements *= length
        return n_elements


class Formula(Protocol):
    """The formula of one tensor."""

    n_passes: int
    """How often all blocks must be seen before the first can be written; 0: each element depends on the same element
    of the inputs alone. Then several threads may call `combine` at once, and it must change nothing here."""
    whole_rows: bool
    """Whether blocks must hold whole rows (the last dimension)."""

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        """Take note of a block in pass `number` (from 0); blocks come in order, from one thread.

        Args:
            number: Of the pass.
            first: Index of the block's first element in the tensor; a multiple of `REDUCTION_BLOCK`, or of the row
                length where `whole_rows` is asked for.
            base: (n,) of the base, as read: `as_tensor` makes a tensor of it; None if the method has none.
            candidates: (n,) each, in the order of the inputs.
        """
        ...

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        """The result of a block, in `out`: (n,) in float32, or float64 if an input is; the caller casts once.

        Returns:
            `out`.
        """
        ...


@runtime_checkable
class OnePass(Protocol):
    """A formula that can also combine and round in one go, each block once: by this or by `combine`."""

    def combine_rounded(
        self, first: int, base: Numbers | None, candidates: Sequence[Numbers], out: Numbers
    ) -> bool | None:
        """The result of a block, rounded once to the dtype of `out`, (n,), where it is put; all on the processor.

        Returns:
            Whether all of it is finite; None where it can be had only by `combine`.
        """
        ...


@runtime_checkable
class ShortPasses(Protocol):
    """A formula whose passes after the first need not see all; mostly they see next to nothing."""

    def extent(self, number: int) -> int:
        """How many elements, from the first on, pass `number` must see; asked once the pass before it is over."""
        ...


class Elementwise:
    """What formulas without passes have in common."""

    n_passes = 0
    whole_rows = False

    def observe(self, number: int, first: int, base: Numbers | None, candidates: Sequence[Numbers]) -> None:
        """Never called."""
        raise NotImplementedError("an elementwise formula has no passes")


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make one model of several."""

    name: str
    description: str
    """One sentence, for the recipe's schema."""
    source: str
    """The paper, or whoever described it first."""
    formula: Callable[[TensorInputs], Formula]
    parameters: tuple[Parameter, ...] = ()
    base: Literal["needed", "optional", "unused"] = "unused"
    """Whether the formula reads the base's tensors."""
    base_read_up_to: int | None = None
    """Most candidates with which the base is read; None: with any number."""
    n_candidates: tuple[int, int | None] = (1, None)
    """Fewest and most candidates, the base not counted unless it is one; None: no limit."""
    weights: Literal["sum to 1", "free", "unused"] = "free"
    """What is asked of the candidates' weights."""
    skips_zero: bool = False
    """Whether a candidate of weight 0 counts for nothing, so that it need not be read."""
    on_device: bool = False
    """Whether the formula takes blocks on any of torch's devices: torch's operations alone, and no passes."""

    def reads_base(self, n_candidates: int) -> bool:
        """Whether the formula gets the base's tensors when it merges so many candidates."""
        return self.base != "unused" and (self.base_read_up_to is None or n_candidates <= self.base_read_up_to)

    def parameters_of(self, scope: Literal["merge", "candidate"]) -> dict[str, Parameter]:
        """Parameters that are set in one place, by name."""
        return {parameter.name: parameter for parameter in self.parameters if parameter.scope == scope}
