"""Colours of heat maps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.colours import BLUE, BROWN, WHITE, as_hex, contrast, shade, shade_both_ways, text_colour


def test_a_shade_goes_from_white_to_the_colour_and_stays_there():
    assert [shade(part, BLUE) for part in (-1.0, 0.0, 1.0, 2.0)] == [WHITE, WHITE, BLUE, BLUE]
    # Midway: (255 + 8) / 2 and so on, rounded.
    assert shade(0.5, BLUE) == (132, 162, 202)


def test_both_signs_have_a_colour_of_their_own():
    assert [shade_both_ways(number) for number in (-1.0, 0.0, 1.0)] == [BROWN, WHITE, BLUE]


def test_contrast_is_that_of_wcag():
    assert contrast(WHITE, (0, 0, 0)) == contrast((0, 0, 0), WHITE) == pytest.approx(21)
    # The known example of the palest grey that passes on white.
    assert contrast(WHITE, (0x76, 0x76, 0x76)) == pytest.approx(4.54, abs=0.005)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_can_be_read_on_any_colour(colour: tuple[int, int, int]):
    assert contrast(colour, text_colour(colour)) >= 4.5


def test_a_colour_is_written_as_html_has_it():
    assert as_hex((8, 69, 255)) == "#0845ff"
