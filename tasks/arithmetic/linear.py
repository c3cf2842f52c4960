"""The weighted sum: what LM-Cocktail and model soups do to every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.arithmetic.block import Numbers

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


def weighted_sum(blocks: Sequence[Tensor], coefficients: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Sum `coefficients[i] * blocks[i]` in the given order, in float32, or in float64 if any block is.

    A single block with coefficient 1 comes back bit by bit.

    Args:
        blocks: Floating tensors of one shape on one device; their dtypes may differ.
        coefficients: One per block. They are rounded to the precision of the sum.
        out: Where the sum is put, in the dtype of the sum; it shares no memory with a block.

    Returns:
        The sum, in its full precision: the caller casts once, at the end.

    Raises:
        ValueError: there are no blocks, their shapes differ, or the coefficients are not as many.

    Source: LM-Cocktail, https://arxiv.org/abs/2311.13534
    """
    if not blocks or len(blocks) != len(coefficients):
        raise ValueError(f"expected one coefficient per block, found {len(coefficients)} for {len(blocks)} blocks")
    check_equal_shapes(blocks)
    if out is None:
        out = torch.empty(blocks[0].shape, dtype=accumulation_dtype(blocks), device=blocks[0].device)
    # Converted first: torch would round the product of a bfloat16 tensor and a number to bfloat16.
    out.copy_(blocks[0]).mul_(coefficients[0])
    for block, coefficient in zip(blocks[1:], coefficients[1:], strict=True):
        out.add_(block, alpha=coefficient)
    return out


def accumulation_dtype(blocks: Sequence[Tensor]) -> torch.dtype:
    """The dtype that sums over these blocks are kept in.

    bfloat16 keeps 8 significant bits: 100 times 0.01 summed in it gives 1.047.
    """
    return torch.float64 if any(block.dtype == torch.float64 for block in blocks) else torch.float32


def check_equal_shapes(blocks: Sequence[Numbers]) -> None:
    """Refuse what torch would broadcast.

    Raises:
        ValueError: the shapes differ.
    """
    shapes = {tuple(block.shape) for block in blocks}
    if len(shapes) > 1:
        raise ValueError(f"blocks of one sum have one shape; found {', '.join(map(str, sorted(shapes)))}")
