"""Loss per example and candidate: where the weights come from, and whether one example decides them."""

from tasks.night_records import RefreshReport
from tasks.publish.report.drawings.losses import LossRow, draw_losses
from tasks.publish.report.html import escape, figure, number, section, table, tag

MOST_ROWS = 64
"""Examples that are drawn: those that tell candidates apart."""
_MOST_COLUMNS = 16
_NAMED_ROWS = 5
_DARKEST = 0.95
"""Part of the losses that the colours tell apart: one that is far off would leave all others white."""


def render_examples(report: RefreshReport) -> str:
    """Nothing where the strategy needed no losses, or scores are not of the same examples."""
    scores = report.scores[:_MOST_COLUMNS]
    if not scores or len({len(score.losses) for score in scores}) != 1 or not scores[0].losses:
        return ""
    what = scores[0].unit
    names, influential = [score.candidate for score in scores], report.weights.trust.most_influential
    every = [
        LossRow(place, losses, place == influential)
        for place, losses in enumerate(zip(*(score.losses for score in scores), strict=True), 1)
    ]
    ordered = sorted(every, key=lambda row: (min(row.losses) - max(row.losses), row.place))
    shown = [row for place, row in enumerate(ordered) if place < MOST_ROWS or row.marked]
    full = _quantile([loss for row in every for loss in row.losses], _DARKEST)
    plot = draw_losses(names, shown, full, what)
    return section(
        f"Loss per {what} and candidate",
        tag("div", figure(_caption(what), plot, _note(len(shown), len(every), influential, what))
        + tag("div", _table(names, shown, what), "card"), "grid"),
    )  # fmt: skip


def _caption(what: str) -> str:
    return f"A row per {what}, those on which candidates differ most first; the darker, the higher the loss"


def _note(n_shown: int, n_all: int, influential: int | None, what: str) -> str:
    note = f"{n_shown} of {n_all} rows." if n_shown < n_all else f"All {n_all} rows."
    if influential is None:
        return note
    return f"{note} ▶ marks {what} {influential}: without it the weights change most."


def _table(names: list[str], rows: list[LossRow], what: str) -> str:
    """The first rows as numbers, and the marked one: what the colours say, to be read."""
    named = [row for place, row in enumerate(rows) if place < _NAMED_ROWS or row.marked]
    cells = [
        [escape(f"{'▶ ' if row.marked else ''}{what} {row.place}"), *(number(loss) for loss in row.losses)]
        for row in named
    ]
    return table(f"Where candidates differ most: loss per {what}, in nats", (what, *names), cells, numbers_from=1)


def _quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
