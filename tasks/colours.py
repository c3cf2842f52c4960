"""Colours of numbers in heat maps, for pages and terminals alike.

Blue, white and brown are told apart by people with any kind of colour vision; the text on them is black or white,
whichever stands out more, at 4.5 to 1 or better (WCAG 2, https://www.w3.org/TR/WCAG22/#contrast-minimum). The number
stands in every cell, so that no colour has to be read.
"""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

WHITE: Colour = (255, 255, 255)
BLUE: Colour = (8, 69, 148)
BROWN: Colour = (166, 54, 3)


def shade(part: float, full: Colour) -> Colour:
    """A colour between white (0) and `full` (1); beyond these it stays."""
    part = max(0.0, min(1.0, part))
    red, green, blue = (round(white + part * (end - white)) for white, end in zip(WHITE, full, strict=True))
    return red, green, blue


def shade_both_ways(number: float) -> Colour:
    """Brown at -1, white at 0, blue at 1."""
    return shade(abs(number), BLUE if number > 0 else BROWN)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has more contrast."""
    return (0, 0, 0) if contrast(background, (0, 0, 0)) >= contrast(background, WHITE) else WHITE


def contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of WCAG 2, from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def as_hex(colour: Colour) -> str:
    """As HTML writes it: #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _luminance(colour: Colour) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
