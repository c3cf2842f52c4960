"""Numbers of positions, and elements dropped by them; see `tasks.arithmetic.random_masks`."""

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kernel import compiled
from tasks.arithmetic.elements import Real

_Key = tuple[int, int]
# 2**32 over the golden ratio: positions that differ in one bit then differ in many. Without it, numbers at distances
# such as 32 or 3072 depend on each other.
_STEP = np.uint32(0x9E3779B9)
# Odd, and with the shifts 16, 15, 16 among the best known for two rounds: each bit of the input turns each bit of the
# output with a probability within 0.2 % of one half. https://github.com/skeeto/hash-prospector
_FIRST_FACTOR, _SECOND_FACTOR = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


@compiled
def _number(position: int, key: _Key) -> int:
    """32 random bits."""
    x = np.uint32(np.uint32(np.uint32(position) * _STEP) + np.uint32(key[0]))
    x = np.uint32((x ^ (x >> np.uint32(16))) * _FIRST_FACTOR) ^ np.uint32(key[1])
    x = np.uint32((x ^ (x >> np.uint32(15))) * _SECOND_FACTOR)
    return x ^ (x >> np.uint32(16))  # pyright: ignore[reportReturnType]


@compiled
def fill(position: int, key: _Key, out: NDArray[np.uint32]) -> None:
    for i in range(out.size):
        out[i] = _number(position + i, key)


@compiled
def keep(vector: Real, position: int, key: _Key, chance: int) -> None:
    limit, zero = np.uint32(chance), vector.dtype.type(0)
    for i in range(vector.size):
        vector[i] = vector[i] if (_number(position + i, key) >> np.uint32(1)) < limit else zero


@compiled
def keep_each(vector: Real, position: int, key: _Key, chances: NDArray[np.int32], rescale: bool) -> None:
    real = vector.dtype.type
    zero, one, unit = real(0), real(1), real(2.0**-31)
    for i in range(vector.size):
        kept = (_number(position + i, key) >> np.uint32(1)) < np.uint32(chances[i])
        probability = real(chances[i]) * unit if rescale else one
        vector[i] = vector[i] / probability if kept else zero
