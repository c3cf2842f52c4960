"""Random numbers that depend on nothing but a seed, names and an element's position.

A counter-based generator: the number of an element is a hash of its position, so that blocks of any size, in any
order, by any number of threads, give the same numbers. The position times an odd constant, then two rounds of
multiply and xor-shift, with half of a 64-bit key added before the first and half put in before the second.
"""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.compiled import Real, compiled

_Key = tuple[int, int]
# 2**32 over the golden ratio: positions that differ in one bit then differ in many. Without it, numbers at distances
# such as 32 or 3072 depend on each other.
_STEP = np.uint32(0x9E3779B9)
# Odd, and with the shifts 16, 15, 16 among the best known for two rounds: each bit of the input turns each bit of the
# output with a probability within 0.2 % of one half. https://github.com/skeeto/hash-prospector
_FIRST_FACTOR, _SECOND_FACTOR = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


class PositionalNumbers:
    """The random numbers of one tensor of one candidate."""

    def __init__(self, seed: int, tensor: str, candidate: str):
        self._identity = (seed, tensor, candidate)
        self._first_key = self._key(0)

    def fill(self, first: int, out: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Uniform 32-bit numbers of the elements from `first` on, in `out`: (n,)."""
        for part, position, key in self._pieces(first, len(out)):
            _fill(position, key, out[part])
        return out

    def keep(self, first: int, vector: Tensor, chance: int) -> None:
        """Put 0 into each element but with the same chance, in place.

        Args:
            first: Position of the vector's first element.
            vector: (n,) in float32 or float64.
            chance: Of being kept, from 0 to 2**31 - 1, see `as_chance`.
        """
        elements = vector.numpy()
        for part, position, key in self._pieces(first, len(elements)):
            _keep(elements[part], position, key, chance)

    def keep_each(self, first: int, vector: Tensor, chances: NDArray[np.int32], rescale: bool) -> None:
        """Put 0 into each element but with its own chance, in place.

        Args:
            first: Position of the vector's first element.
            vector: (n,) in float32 or float64.
            chances: (n,) as for `keep`.
            rescale: Divide what is kept by its probability; chances must then be above 0.
        """
        elements = vector.numpy()
        for part, position, key in self._pieces(first, len(elements)):
            _keep_each(elements[part], position, key, chances[part], rescale)

    def _pieces(self, first: int, n_elements: int) -> Iterator[tuple[slice, int, _Key]]:
        """Cut a range where a multiple of 2**32 begins: each piece of it, its position modulo 2**32 and its key."""
        start = 0
        while start < n_elements:
            high, position = divmod(first + start, 2**32)
            stop = min(start + 2**32 - position, n_elements)
            yield slice(start, stop), position, self._key(high) if high else self._first_key
            start = stop

    def _key(self, high: int) -> _Key:
        """Key of 2**32 positions that have the same upper bits."""
        digest = hashlib.blake2b(json.dumps([*self._identity, high]).encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def as_chance(probability: float) -> int:
    """A probability in units of 2**-31; 1 becomes the largest number below it."""
    return min(round(probability * 2**31), 2**31 - 1)


@compiled
def _number(position: int, key: _Key) -> int:
    """32 random bits."""
    x = np.uint32(np.uint32(np.uint32(position) * _STEP) + np.uint32(key[0]))
    x = np.uint32((x ^ (x >> np.uint32(16))) * _FIRST_FACTOR) ^ np.uint32(key[1])
    x = np.uint32((x ^ (x >> np.uint32(15))) * _SECOND_FACTOR)
    return x ^ (x >> np.uint32(16))  # pyright: ignore[reportReturnType]


@compiled
def _fill(position: int, key: _Key, out: NDArray[np.uint32]) -> None:
    for i in range(out.size):
        out[i] = _number(position + i, key)


@compiled
def _keep(vector: Real, position: int, key: _Key, chance: int) -> None:
    limit, zero = np.uint32(chance), vector.dtype.type(0)
    for i in range(vector.size):
        vector[i] = vector[i] if (_number(position + i, key) >> np.uint32(1)) < limit else zero


@compiled
def _keep_each(vector: Real, position: int, key: _Key, chances: NDArray[np.int32], rescale: bool) -> None:
    real = vector.dtype.type
    zero, one, unit = real(0), real(1), real(2.0**-31)
    for i in range(vector.size):
        kept = (_number(position + i, key) >> np.uint32(1)) < np.uint32(chances[i])
        probability = real(chances[i]) * unit if rescale else one
        vector[i] = vector[i] / probability if kept else zero
