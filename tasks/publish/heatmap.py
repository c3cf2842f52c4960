"""The health of a merge as heat maps in HTML, to stand in a page: no script, no style sheet, nothing to load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from tasks.colours import BLUE, BROWN, WHITE, Colour, as_hex, shade, shade_both_ways, text_colour
from tasks.health_summaries import cosine_text, pairs_of, percent
from tasks.records import WHOLE_MODEL, MergeHealth

_EMPTY: Colour = (238, 238, 238)
_CELL = "padding:2px 8px;border:1px solid #fff;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
_HEAD = "padding:2px 8px;font-weight:600;text-align:{};vertical-align:bottom;max-width:12em;overflow-wrap:break-word"
_STAYS = "position:sticky;left:0;background:#fff"
"""In view when the table is scrolled."""

Row = Sequence[float | None]
Paint = Callable[[int, float], Colour]
"""Number of the column and of the cell to the cell's colour."""


def render_heat_map(health: MergeHealth) -> str:
    """Maps of how far every candidate moved, of cosines and of sign conflicts: a row per layer, well-formed XML."""
    parts = [*_warnings(health), _moves(health)]
    if len(health.candidates) > 1:
        parts += [_directions(health), _conflicts(health)]
    note = "All elements were compared." if health.sampled_share == 1 else _sample_note(health)
    style = "font:14px/1.4 system-ui,sans-serif;color:#000;background:#fff"
    return (
        f'<section class="merge-health" style="{style}">\n<h2>Health of the merge</h2>\n'
        f"<p>A task vector is what a candidate changed: candidate minus base. {note}</p>\n"
        f"{''.join(parts)}</section>\n"
    )


def _sample_note(health: MergeHealth) -> str:
    return f"Numbers are estimates from a fixed sample of {percent(health.sampled_share)} of the elements."


def _warnings(health: MergeHealth) -> Iterator[str]:
    if health.warnings:
        items = "".join(f"<li>{escape(warning)}</li>" for warning in health.warnings)
        yield f'<ul style="border-left:4px solid {as_hex(BROWN)};padding:4px 8px 4px 28px">{items}</ul>\n'


def _moves(health: MergeHealth) -> str:
    rows = {group: [health.relative_norm(name, group) for name in health.candidates] for group in health.groups}
    largest = max((number for row in rows.values() for number in row if number), default=0.0)
    scale = _scale("0 %", WHITE, BLUE, percent(largest))
    return _table(
        "How far each candidate moved: length of its task vector over that of the base",
        scale, health.candidates, rows, percent, lambda _, number: shade(number / largest if largest else 0.0, BLUE),
    )  # fmt: skip


def _directions(health: MergeHealth) -> str:
    rows = {group: [cosine for *_, cosine, _ in pairs_of(health, group)] for group in health.groups}
    scale = f"{_scale('-1 against each other', BROWN, WHITE, '0 at right angles')}{_scale('', WHITE, BLUE, '1 alike')}"
    title = "Whether two candidates pull the same way: cosine of their task vectors"
    return _table(title, scale, _pair_names(health), rows, cosine_text, lambda _, cosine: shade_both_ways(cosine))


def _conflicts(health: MergeHealth) -> str:
    n_candidates = len(health.candidates)
    several = n_candidates > 2
    rows = {
        group: [conflict for *_, conflict in pairs_of(health, group)]
        + ([health.disagreements[group]] if several else [])
        for group in health.groups
    }
    columns = [*_pair_names(health), *(["any two"] if several else [])]
    # Changes that have nothing to do with each other all have one sign in 2 of 2^n cases.
    by_chance = [0.5] * len(_pair_names(health)) + [1 - 2.0 ** (1 - n_candidates)]
    any_two = f" (any two of {n_candidates}: {percent(by_chance[-1])})" if several else ""
    scale = _scale("0 %", WHITE, BROWN, f"50 %{any_two}, as by chance, or more")
    title = "Sign conflicts: of the elements that both changed, how many went opposite ways"
    return _table(title, scale, columns, rows, percent, lambda column, number: shade(number / by_chance[column], BROWN))


def _pair_names(health: MergeHealth) -> list[str]:
    return [f"{left} and {right}" for left, right, *_ in pairs_of(health)]


def _table(
    title: str,
    scale: str,
    columns: Sequence[str],
    rows: Mapping[str, Row],
    text: Callable[[float | None], str],
    paint: Paint,
) -> str:
    """One map with its legend; a page that is too narrow scrolls it, by keys, too."""
    head = "".join(f'<th scope="col" style="{_HEAD.format("right")}">{escape(name)}</th>' for name in columns)
    body = "".join(_row(group, row, text, paint) for group, row in rows.items())
    return (
        f'<figure style="margin:24px 0"><figcaption style="font-weight:600">{escape(title)}</figcaption>\n'
        f'<div tabindex="0" style="overflow-x:auto;margin:8px 0"><table style="border-collapse:collapse">\n'
        f'<thead><tr><th scope="col" style="{_HEAD.format("left")};{_STAYS}">part of the model</th>'
        f"{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>\n{scale}</figure>\n"
    )


def _row(group: str, row: Row, text: Callable[[float | None], str], paint: Paint) -> str:
    weight = "font-weight:700" if group == WHOLE_MODEL else "font-weight:400"
    cells = "".join(
        f'<td style="{_CELL};{weight};{_colours(_EMPTY if number is None else paint(column, number))}">'
        f"{text(number)}</td>"
        for column, number in enumerate(row)
    )
    style = f"padding:2px 8px;text-align:left;white-space:nowrap;{weight};{_STAYS}"
    return f'<tr><th scope="row" style="{style}">{escape(group)}</th>{cells}</tr>\n'


def _scale(low: str, first: Colour, last: Colour, high: str) -> str:
    """The legend: a bar from one colour to another, with what its ends mean."""
    bar = (
        f"display:inline-block;width:8em;height:1em;vertical-align:middle;margin:0 4px;border:1px solid #888;"
        f"background:linear-gradient(to right,{as_hex(first)},{as_hex(last)})"
    )
    return f'<small>{escape(low)}<span style="{bar}"></span>{escape(high)}</small>'


def _colours(background: Colour) -> str:
    return f"background:{as_hex(background)};color:{as_hex(text_colour(background))}"
