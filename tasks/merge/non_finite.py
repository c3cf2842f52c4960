"""NaN and infinity in blocks: found in passing, and named by tensor and candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.arithmetic.block import Block, Numbers
from tasks.errors import NonFiniteError
from tasks.merge.sources import TensorSource, describe
from tasks.tensors import TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

_EXPONENT = np.uint16(0x7F80)
"""All ones in bfloat16 numbers that are not finite."""


def is_finite(numbers: Numbers) -> bool:
    """Whether a block holds neither NaN nor infinity."""
    if isinstance(numbers, Block):
        array = numbers.array()
        return bool((array & _EXPONENT != _EXPONENT).all() if numbers.dtype == "BF16" else np.isfinite(array).all())
    # Either shows in the sum, which takes a thirtieth of the time. Only a sum that overflowed says nothing; in float32,
    # where float16 numbers are summed, that does not happen.
    total = numbers.sum(dtype=torch.float32) if numbers.dtype == torch.float16 else numbers.sum()
    return math.isfinite(float(total)) or bool(torch.isfinite(numbers).all())


def refuse_inputs(tensor: TensorView, sources: Sequence[TensorSource], blocks: Sequence[Numbers]) -> None:
    """Name the sources whose blocks hold NaN or infinity.

    Raises:
        NonFiniteError: there are any.
    """
    guilty = [
        f"{source.name} ({describe(source, tensor.name).file})"
        for source, block in zip(sources, blocks, strict=True)
        if not is_finite(block)
    ]
    if guilty:
        raise NonFiniteError(
            f"tensor {tensor.name!r} holds NaN or infinity in {', '.join(guilty)}; a merge would spread it, "
            "so leave that candidate out or train it again"
        )


def overflow_error(tensor: TensorView, total: Tensor | None) -> NonFiniteError:
    """What to say of a sum, (n,) where it is at hand, that does not fit the output's dtype with inputs that do."""
    reached = "" if total is None else f"reaches {float(total.abs().max()):.3g} and "
    return NonFiniteError(
        f"tensor {tensor.name!r}: all inputs are finite, but their combination {reached}overflows "
        f"{tensor.dtype}; choose smaller merge weights or a dtype with a larger range (merge.dtype)"
    )
