import math

import pytest

from tasks.arithmetic.spherical import slerp_coefficients


def test_a_third_of_a_right_angle_by_hand():
    # Unit vectors at 90 degrees: sin 60 and sin 30 degrees over sin 90.
    assert slerp_coefficients(1.0, 0.0, 1.0, 1 / 3) == pytest.approx((math.sqrt(3) / 2, 0.5))


def test_vectors_need_not_be_of_one_length():
    assert slerp_coefficients(1e-8, 0.0, 1e300, 1 / 3) == pytest.approx((math.sqrt(3) / 2, 0.5))


@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("cosine", [-0.9, 0.0, 0.3, 0.9994])
def test_the_ends_are_the_vectors_themselves(t: float, cosine: float):
    assert slerp_coefficients(1.0, cosine, 1.0, t) == (1 - t, t)


@pytest.mark.parametrize(
    "products",
    [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (4.0, 1.9999, 1.0)],
    ids=["first zero", "second zero", "both zero", "equal", "opposite", "nearly parallel"],
)
def test_a_line_where_there_is_no_arc(products: tuple[float, float, float]):
    assert slerp_coefficients(*products, 0.25) == (0.75, 0.25)


def test_line_and_arc_agree_where_one_replaces_the_other():
    below, above = (slerp_coefficients(1.0, cosine, 1.0, 0.5) for cosine in (0.99949, 0.99951))
    # The docstring's 1.3e-4 of the length: half of it in each factor.
    assert below == pytest.approx(above, abs=0.65e-4)
