"""Tensors as the numbers or bits that compiled loops take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.scratch import SCRATCH

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

Elements = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint16]
"""Numbers, or the bits of bfloat16 numbers, which numpy does not know; see `as_elements`."""
Real = NDArray[np.float32] | NDArray[np.float64]


def as_elements(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Elements]:
    """Tensors as kernels take them: all as numbers of one dtype, or all as bits of bfloat16 if they are that.

    Args:
        tensors: (n,) each.
        dtype: float32, or float64, to which bfloat16 numbers, too, are converted.

    Returns:
        (n,) each, in the tensors' own memory, or in that of this thread which the next call uses again.
    """
    if dtype == torch.float32 and all(tensor.dtype == torch.bfloat16 for tensor in tensors):
        return [tensor.view(torch.uint16).numpy() for tensor in tensors]
    return [
        (
            tensor if tensor.dtype == dtype else SCRATCH.vector(f"elements {number}", len(tensor), dtype).copy_(tensor)
        ).numpy()
        for number, tensor in enumerate(tensors)
    ]
