"""Loops over elements that torch could only do in many steps, compiled by numba for the processor at hand.

A kernel is compiled when it is first called with float32 or float64 vectors, which takes about half a second once on
a machine; later processes load it. Other threads go on while it runs. Every operation is rounded by itself, in the
order in which it is written, so that results are the same on every processor: nothing is reordered, and numba never
fuses a product and a sum. Methods that torch does as fast import neither this module nor numba, for the start it costs.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.kept_kernels import KeptKernels
from tasks.arithmetic.scratch import SCRATCH

Elements = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint16]
"""Numbers, or the bits of bfloat16 numbers, which numpy does not know; see `as_elements`."""
Real = NDArray[np.float32] | NDArray[np.float64]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile a function at its first call, or load what an earlier process compiled on an equal processor.

    Kept files lie in `__pycache__` beside the function's module, else in the user's cache folder; NUMBA_CACHE_DIR
    names another place. Where none can be written every process compiles for itself. A change of the function's own
    module alone is noticed: other kernels that it calls belong into it, or are as good as final.
    """
    made: Any = numba.njit(nogil=True, error_model="numpy")(kernel)
    # Without a place for files the kernel stays as it is. numba has no public way to say where to keep it.
    with suppress(RuntimeError):
        made._cache = KeptKernels(kernel)
    return cast(Kernel, made)


@compiled
def magnitude_pattern(number: float) -> int:
    """The bits of the absolute value in float32, which are ordered like the values, as a 32-bit number."""
    return np.float32(number).view(np.uint32) & np.uint32(0x7FFFFFFF)  # pyright: ignore[reportReturnType]


def widen(element: Any) -> Any:
    """An element as a number: of the bits of a bfloat16 number those of the float32 number that it is. In kernels."""
    raise NotImplementedError("elements are widened in kernels only")


@overload(widen, strict=False)
def _widen(element: Any) -> Callable[[Any], Any]:
    # numba asks with the type of the element which function it shall compile.
    if isinstance(element, types.Integer):
        return lambda element: np.uint32(np.uint32(element) << np.uint32(16)).view(np.float32)
    return lambda element: element


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


@compiled
def subtract(elements: Elements, origin: Elements, out: Real) -> None:
    """Differences; those of bfloat16 numbers are taken in float32, where they are exact if the numbers are close."""
    for i in range(out.size):
        out[i] = widen(elements[i]) - widen(origin[i])
