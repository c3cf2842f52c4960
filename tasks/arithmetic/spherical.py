"""Spherical interpolation: from one vector to another along an arc."""

import math

NEARLY_PARALLEL = 0.9995
"""Cosine of about 1.8 degrees, from which a line replaces the arc, as is usual."""


def slerp_coefficients(first_squared: float, dot: float, second_squared: float, t: float) -> tuple[float, float]:
    """Factors c and d of slerp(t; x, y) = c x + d y = sin((1 - t) a) / sin(a) x + sin(t a) / sin(a) y.

    a is the angle between x and y, which need not be of one length. The factors are 1 - t and t, a straight line,
    where the vectors are nearly parallel, so that both ways agree within 1.3e-4 of the vectors' length; where one is
    zero; and where they are nearly opposite, for then no arc is the shortest and sin(a) would blow up what is noise.
    Halfway between exactly opposite vectors of one length lies zero.

    Args:
        first_squared: Inner product of x with itself.
        dot: Inner product of x and y.
        second_squared: Inner product of y with itself.
        t: Way from x (0) to y (1).

    Source: K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985
    """
    # Each root by itself: the product of the squares may overflow where the lengths do not.
    lengths = math.sqrt(first_squared) * math.sqrt(second_squared)
    if lengths == 0 or abs(dot / lengths) > NEARLY_PARALLEL:
        return 1 - t, t
    angle = math.acos(dot / lengths)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
