"""The library in C (`*.c` here): one pass over the inputs, where torch needs one for every operation.

It is made when the package is installed, where there is a C compiler (`hatch_build.py`). Without it, and for dtypes
that it does not know, callers let torch and numba compute: the bytes are the same.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.arithmetic.block import Block, Numbers

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).with_name("_kernels.so")
VERSION = 5
"""Of the functions in C; `kernels.c` says it, too."""

_DTYPES = {"BF16": (0, 2), "F32": (1, 4), "F16": (2, 2)}
"""The code by which C knows a dtype, as safetensors calls it, and the bytes of a number."""
_POINTER, _INT, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t, ctypes.c_float
_BLOCK = [_POINTER, _INT]
"""Where a block is, and the code of its dtype."""
_ARGUMENTS = {
    "weighted_sum": [_POINTER, _POINTER, _POINTER, _INT, _SIZE, *_BLOCK],
    "add_task_vectors": [_POINTER, _POINTER, _POINTER, _FLOAT, _INT, _SIZE, *_BLOCK],
    "thinned_sum": [
        _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _FLOAT, ctypes.c_uint32, _SIZE, _SIZE,
        _POINTER, _POINTER, *_BLOCK,
    ],
    "count_magnitudes": [_POINTER, _INT, *_BLOCK],
    "add_products": [_POINTER, _POINTER, _INT, *_BLOCK, _SIZE, ctypes.c_int64, _POINTER, _POINTER, _INT],
    "read_blocks": [_INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER],
}  # fmt: skip


@cache
def load_library() -> ctypes.CDLL | None:
    """The library; None where it was not made, or is of another version of the source."""
    if not LIBRARY.is_file():
        logger.debug("%s was not made, as there was no C compiler: torch merges, more slowly", LIBRARY)
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        version = library.version()
    except (OSError, AttributeError) as error:
        logger.warning("%s cannot be loaded, so torch merges, more slowly: %s; install again", LIBRARY, error)
        return None
    if version != VERSION:
        logger.warning("%s is of another version, so torch merges, more slowly; install again", LIBRARY)
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    library.count_magnitudes.restype = None
    return library


class Operands(NamedTuple):
    """Numbers as the functions in C take them, which must be held for as long as it is used."""

    library: ctypes.CDLL
    addresses: ctypes.Array[ctypes.c_void_p]
    codes: ctypes.Array[ctypes.c_int]
    """Of their dtypes."""


def operands(numbers: Sequence[Numbers]) -> Operands | None:
    """The library and where numbers lie, if it can read and write all of them; (n,) each."""
    library = load_library()
    if library is None:
        return None
    n_elements = numbers[0].numel()
    addresses: list[int] = []
    codes: list[int] = []
    # Called for every block: what takes long in Python would take a fifth of a merge.
    for each in numbers:
        dtype, address = (each.dtype, each.address) if isinstance(each, Block) else _find(each)
        code, size = _DTYPES.get(dtype, (None, 1))
        # C may assume what torch does not: that a number lies at a multiple of its size.
        if code is None or each.numel() != n_elements or address % size:
            return None
        addresses.append(address)
        codes.append(code)
    n_tensors = len(addresses)
    return Operands(library, (ctypes.c_void_p * n_tensors)(*addresses), (ctypes.c_int * n_tensors)(*codes))


def _find(tensor: Tensor) -> tuple[str, int]:
    """Dtype and address of a tensor; no dtype if it is not here, or not one number after the other."""
    if not tensor.is_cpu or tensor.ndim != 1 or not tensor.is_contiguous():
        return "", 0
    return {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16"}.get(tensor.dtype, ""), tensor.data_ptr()


def code_of(dtype: str) -> int | None:
    """The number by which C knows a dtype; None where it does not."""
    return _DTYPES.get(dtype, (None, 0))[0]


def floats(numbers: Sequence[float]) -> ctypes.Array[ctypes.c_float]:
    """Numbers, rounded to float32."""
    return (ctypes.c_float * len(numbers))(*numbers)
