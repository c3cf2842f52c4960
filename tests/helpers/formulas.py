"""Run a merge formula over a whole tensor, as the engine does."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tasks.arithmetic.catalogue import find_method
from tasks.arithmetic.linear import accumulation_dtype
from tasks.arithmetic.method import Formula, Number, TensorInputs


def run(formula: Formula, base: Tensor | None, candidates: Sequence[Tensor], block: int = 256 * 1024) -> Tensor:
    """The result in the precision of its sum: blocks of at most `block` elements, or of the rows that fit into it."""
    tensors = [*candidates] if base is None else [base, *candidates]
    shape, n_elements = tensors[0].shape, tensors[0].numel()
    if formula.whole_rows and shape:
        block = max(1, block // shape[-1]) * shape[-1]
    flat = [tensor.reshape(-1) for tensor in tensors]
    out = torch.full((n_elements,), torch.nan, dtype=accumulation_dtype(tensors))

    def blocks(first: int) -> tuple[Tensor | None, list[Tensor]]:
        found = [tensor[first : first + block] for tensor in flat]
        return (None, found) if base is None else (found[0], found[1:])

    for number in range(formula.n_passes):
        for first in range(0, n_elements, block):
            formula.observe(number, first, *blocks(first))
    for first in range(0, n_elements, block):
        formula.combine(first, *blocks(first), out[first : first + block])
    return out.reshape(shape)


def make(
    method: str,
    shape: Sequence[int],
    weights: Sequence[float],
    parameters: Mapping[str, Number] | None = None,
    of_candidates: Sequence[Mapping[str, Number]] | None = None,
    general: int | None = None,
    seed: int = 0,
    name: str = "layer.weight",
) -> Formula:
    """A method's formula for one tensor; parameters left out are at their default."""
    found = find_method(method)
    defaults = {each.name: each.default for each in found.parameters if each.scope == "merge"}
    own_defaults = {each.name: each.default for each in found.parameters if each.scope == "candidate"}
    given = of_candidates or [{}] * len(weights)
    return found.formula(
        TensorInputs(
            name,
            tuple(shape),
            weights=tuple(weights),
            parameters=defaults | dict(parameters or {}),
            of_candidates=tuple(own_defaults | dict(each) for each in given),
            candidates=tuple(f"candidate{index}" for index in range(len(weights))),
            general=general,
            seed=seed,
        )
    )
