"""Random numbers that depend on nothing but a seed, names and an element's position.

A counter-based generator: the number of an element is a hash of its position, so that blocks of any size, in any
order, by any number of threads, give the same numbers. The position times an odd constant, then two rounds of
multiply and xor-shift, with half of a 64-bit key added before the first and half put in before the second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic import loops

if TYPE_CHECKING:
    from torch import Tensor

_Key = tuple[int, int]


class PositionalNumbers:
    """The random numbers of one tensor of one candidate."""

    def __init__(self, seed: int, tensor: str, candidate: str):
        self._identity = (seed, tensor, candidate)
        self._first_key = self._key(0)

    def fill(self, first: int, out: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Uniform 32-bit numbers of the elements from `first` on, in `out`: (n,)."""
        for part, position, key in self._pieces(first, len(out)):
            loops.random_masks.fill(position, key, out[part])
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
            loops.random_masks.keep(elements[part], position, key, chance)

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
            loops.random_masks.keep_each(elements[part], position, key, chances[part], rescale)

    def key_of(self, first: int, n_elements: int) -> _Key | None:
        """Key of the numbers of a range; None where it begins before a multiple of 2**32 and ends beyond it."""
        pieces = list(self._pieces(first, n_elements))
        return pieces[0][2] if len(pieces) == 1 else None

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
