"""Memory that a thread uses again for every piece of every tensor: fresh pages would cost more than the arithmetic."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch


PIECE_ELEMENTS = 128 * 1024
"""Elements that a formula of several steps works on at a time: few enough for the cache, and enough for a step to take
far longer than its call, for which threads wait for each other. A quarter of it takes a third longer."""


class Scratch(threading.local):
    """Vectors by name, a set of its own for every thread."""

    def __init__(self) -> None:
        self._vectors: dict[tuple[str, torch.dtype], Tensor] = {}
        self._arrays: dict[tuple[str, DTypeLike], NDArray[Any]] = {}

    def array(self, name: str, n_elements: int, dtype: DTypeLike) -> NDArray[Any]:
        """(n_elements,) of anything; it is the caller's until the same name is asked for again."""
        found = self._arrays.get((name, dtype))
        if found is None or len(found) < n_elements:
            found = self._arrays[name, dtype] = np.empty(n_elements, dtype)
        return found[:n_elements]

    def vector(self, name: str, n_elements: int, dtype: torch.dtype) -> Tensor:
        """The same as a tensor."""
        found = self._vectors.get((name, dtype))
        if found is None or found.numel() < n_elements:
            found = self._vectors[name, dtype] = torch.empty(max(n_elements, PIECE_ELEMENTS), dtype=dtype)
        return found if found.numel() == n_elements else found[:n_elements]


SCRATCH = Scratch()


def scratch_like(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Memory of a tensor's shape, on its device; see `Scratch.vector`. A GPU's own allocator keeps what was used."""
    if tensor.device.type != "cpu":
        return torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
    return SCRATCH.vector(name, tensor.numel(), dtype).view(tensor.shape)
