"""Differences of blocks."""

from tasks.arithmetic.compiled.kernel import compiled, widen
from tasks.arithmetic.elements import Elements, Real


@compiled
def subtract(elements: Elements, origin: Elements, out: Real) -> None:
    """Differences; those of bfloat16 numbers are taken in float32, where they are exact if the numbers are close."""
    for i in range(out.size):
        out[i] = widen(elements[i]) - widen(origin[i])
