"""How a loop becomes a kernel, and what kernels share."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.extending import overload

from tasks.arithmetic.compiled.kept_kernels import KeptKernels

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
