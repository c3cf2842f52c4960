"""Merges in one pass over the inputs, in C (`kernels.c`): read, combine, round, look for NaN.

torch needs a pass for each operation, and slow ones where dtypes differ; a linear merge of bfloat16 files is bound by
them. The library is made when the package is installed, where there is a C compiler (`hatch_build.py`). Without it,
and for dtypes that it does not know, callers let torch compute: the bytes are the same.
"""

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).with_name("_kernels.so")
VERSION = 1
"""Of the functions in `kernels.c`, which says it, too."""

_DTYPES = {torch.bfloat16: 0, torch.float32: 1}


def sum_rounded(blocks: Sequence[Tensor], coefficients: Sequence[float], out: Tensor) -> bool | None:
    """`tasks.arithmetic.linear.weighted_sum`, rounded once to the dtype of `out`.

    Args:
        blocks: (n,) each, at least one.
        coefficients: One per block.
        out: (n,), where the sum is put.

    Returns:
        Whether all of it is finite; None, and `out` as it was, where torch has to compute.
    """
    # torch's functions say what is wrong with the numbers of arguments; C would read past their end.
    library = _library_for([*blocks, out]) if blocks and len(blocks) == len(coefficients) else None
    if library is None:
        return None
    numbers = _floats(coefficients)
    return bool(
        library.weighted_sum(
            _addresses(blocks), _codes(blocks), numbers, len(blocks), len(out), out.data_ptr(), _DTYPES[out.dtype]
        )
    )


def add_task_vectors_rounded(
    general: Tensor, base: Tensor, skills: Sequence[Tensor], omegas: Sequence[float], scale: float, out: Tensor
) -> bool | None:
    """`tasks.arithmetic.task_vectors.add_task_vectors`, rounded once to the dtype of `out`; as `sum_rounded`."""
    blocks = [general, base, *skills]
    library = _library_for([*blocks, out]) if len(skills) == len(omegas) else None
    if library is None:
        return None
    return bool(
        library.add_task_vectors(
            _addresses(blocks), _codes(blocks), _floats(omegas), scale, len(skills), len(out), out.data_ptr(),
            _DTYPES[out.dtype],
        )
    )  # fmt: skip


def is_known(tensors: Sequence[Tensor]) -> bool:
    """Whether functions here can read and write all of these, (n,) each."""
    return _library_for(tensors) is not None


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
    pointer, size = ctypes.c_void_p, ctypes.c_ssize_t
    ends = [ctypes.c_int, size, pointer, ctypes.c_int]
    library.weighted_sum.argtypes = [pointer, pointer, pointer, *ends]
    library.add_task_vectors.argtypes = [pointer, pointer, pointer, ctypes.c_float, *ends]
    return library


def _library_for(tensors: Sequence[Tensor]) -> ctypes.CDLL | None:
    """The library, if it can read and write these tensors."""
    n_elements = len(tensors[0])
    for tensor in tensors:
        if tensor.dtype not in _DTYPES or tensor.device.type != "cpu":
            return None
        if tensor.dim() != 1 or len(tensor) != n_elements or not tensor.is_contiguous():
            return None
        if tensor.data_ptr() % tensor.element_size():
            return None  # C may assume what torch does not: that a number lies at a multiple of its size.
    return load_library()


def _addresses(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def _codes(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_int]":
    return (ctypes.c_int * len(tensors))(*[_DTYPES[tensor.dtype] for tensor in tensors])


def _floats(numbers: Sequence[float]) -> "ctypes.Array[ctypes.c_float]":
    return (ctypes.c_float * len(numbers))(*numbers)
