"""Consecutive elements of a tensor, in memory of this process, as they came from a file or go to one.

numpy has no bfloat16, and torch takes a second to import, so that neither stands for them: what merges on the processor
needs is where they are, how many, and of what dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from tasks.tensors import DTYPE_BYTES

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

_NUMPY_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""safetensors dtype to numpy's, and to torch's but for one; of bfloat16 the bits."""


class Block:
    """(n,) elements of one dtype."""

    __slots__ = ("_n_elements", "address", "dtype", "memory")

    def __init__(self, memory: memoryview, dtype: str, n_elements: int):
        """Elements at the beginning of some memory.

        Args:
            memory: Bytes, at least as many as the elements have.
            dtype: As safetensors calls it.
            n_elements: How many.

        Raises:
            ValueError: memory is too short.
        """
        n_bytes = n_elements * DTYPE_BYTES[dtype]
        if len(memory) < n_bytes:
            raise ValueError(f"{n_elements} elements of {dtype} take {n_bytes} bytes; found {len(memory)}")
        self.memory = memory[:n_bytes]
        self.dtype = dtype
        self.address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0] if n_elements else 0
        """Of the first byte, while the memory is held."""
        self._n_elements = n_elements

    def numel(self) -> int:
        """How many elements."""
        return self._n_elements

    def __len__(self) -> int:
        return self._n_elements

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (self._n_elements,)

    def __getitem__(self, part: slice) -> Block:
        """Elements that follow each other, in the same memory."""
        start, stop, _ = part.indices(self._n_elements)
        size = DTYPE_BYTES[self.dtype]
        return Block(self.memory[start * size :], self.dtype, max(0, stop - start))

    def array(self) -> NDArray[Any]:
        """In the same memory; of bfloat16 the bits, as numpy has no such numbers."""
        return np.frombuffer(self.memory, _NUMPY_NAMES[self.dtype])

    def tensor(self) -> Tensor:
        """In the same memory."""
        if not self._n_elements:
            return torch.empty(0, dtype=torch_dtype(self.dtype))
        return torch.frombuffer(self.memory, dtype=torch_dtype(self.dtype))

    def copy_in_float64(self, out: NDArray[np.float64]) -> None:
        """Put the numbers, of any floating dtype, into (n,) memory."""
        numbers = self.array()
        if self.dtype == "BF16":
            wide = numbers.astype(np.uint32)
            wide <<= np.uint32(16)
            numbers = wide.view(np.float32)
        # Inputs that are not finite are the merge's to refuse.
        with np.errstate(invalid="ignore"):
            out[:] = numbers


Numbers = Union["Tensor", Block]
"""(n,), for functions that take what has been read from a file, or computed."""
AnyNumbers = TypeVar("AnyNumbers", bound=Numbers)
"""For functions that give back what they take."""


def as_tensor(numbers: Numbers) -> Tensor:
    """In the same memory."""
    return numbers.tensor() if isinstance(numbers, Block) else numbers


def torch_dtype(dtype: str) -> torch.dtype:
    """torch's name of what safetensors calls so."""
    return torch.bfloat16 if dtype == "BF16" else getattr(torch, _NUMPY_NAMES[dtype])
