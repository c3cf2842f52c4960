"""Losses and weights at a terminal, and how far to trust them: intervals as bars, simpler choices, warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from tasks.records import Score, to_json
from tasks.trust_summaries import baseline_label, effective_sentence, influence_sentence, range_text, scoring_sentences
from tasks.weight_records import MergeWeights, Trust

_BAR_CELLS = 20


def weights_json(scores: Sequence[Score], weights: MergeWeights) -> dict[str, Any]:
    """Weights, losses with standard errors, and how far to trust them."""
    return {
        "weights": weights.weights,
        "losses": {score.candidate: score.loss for score in scores},
        "loss_stderr": {score.candidate: score.loss_stderr for score in scores},
        "loss_warnings": scoring_sentences(scores),
        "trust": to_json(weights.trust),
        **({"by_depth": weights.by_depth} if weights.by_depth else {}),
    }


def weights_parts(
    scores: Sequence[Score], weights: MergeWeights, *, with_temperatures: bool = False
) -> list[RenderableType]:
    """Losses, weights and their intervals; what simpler choices reach; what is doubtful; what changed."""
    trust = weights.trust
    losses = {score.candidate: score.loss for score in scores}
    errors = {score.candidate: score.loss_stderr for score in scores}
    table = weights_table(weights.weights, losses, errors, trust.intervals)
    notes = ["some weights differ by depth: their mean is shown"] if weights.by_depth else []
    notes += ["░ 95 % interval of the weight"] if trust.intervals else []
    table.caption = "\n".join([*notes, effective_sentence(trust)])
    parts: list[RenderableType] = [table]
    if trust.baselines:
        parts.append(_baselines_table(trust))
    if with_temperatures and trust.at_temperatures:
        parts.append(_temperatures_table(weights))
    if sentence := influence_sentence(trust):
        parts.append(sentence)
    parts += [f"warning: {warning}" for warning in (*scoring_sentences(scores), *trust.warnings)]
    return parts + [f"since the live release: {change}" for change in trust.changes]


def weights_table(
    weights: Mapping[str, float],
    losses: Mapping[str, float],
    errors: Mapping[str, float] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Table:
    """One row per candidate: its loss with standard error, its weight in numbers and as a bar.

    Args:
        weights: Candidate to weight.
        losses: Candidate to loss; empty where weights were given.
        errors: Candidate to the standard error of its loss, where it is known.
        intervals: Candidate to the interval of its weight; the bar is solid to the lower limit, light to the upper.
    """
    errors, intervals = errors or {}, intervals or {}
    table = _table("Losses on the examples, and weights" if losses else "Weights")
    table.add_column("candidate", overflow="fold")
    if losses:
        table.add_column("loss (nats)", justify="right", no_wrap=True)
    table.add_column("weight", justify="right", no_wrap=True)
    if intervals:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", overflow="crop")  # The bar may shrink, so that the names need not.
    for name, weight in weights.items():
        error = f" ±{errors[name]:.3f}" if name in errors else ""
        loss = [f"{losses[name]:.3f}{error}" if name in losses else "-"] if losses else []
        interval = [range_text(intervals.get(name))] if intervals else []
        table.add_row(name, *loss, f"{weight:.3f}", *interval, _bar(weight, intervals.get(name)))
    return table


def _temperatures_table(weights: MergeWeights) -> Table:
    trust = weights.trust
    table = _table("Weights at other temperatures")
    table.add_column("temperature", justify="right", no_wrap=True)
    table.add_column("effective models", justify="right", overflow="fold")
    for name in weights.weights:
        table.add_column(name, justify="right", overflow="fold")
    for temperature in sorted(trust.at_temperatures, key=float):
        shown = [f"{weight:.3f}" for weight in trust.at_temperatures[temperature].values()]
        table.add_row(temperature, f"{trust.effective_at_temperatures[temperature]:.2f}", *shown)
    return table


def _baselines_table(trust: Trust) -> Table:
    table = _table("Beside simpler choices")
    table.add_column("on the examples", overflow="fold")
    table.add_column("loss (nats)", justify="right", no_wrap=True)
    has_general = any(baseline.general_loss is not None for baseline in trust.baselines)
    if has_general:
        table.add_column("general loss (nats)", justify="right", overflow="fold")
    for baseline in trust.baselines:
        general = "-" if baseline.general_loss is None else f"{baseline.general_loss:.3f}"
        loss = f"{baseline.loss:.3f} ±{baseline.loss_stderr:.3f}"
        table.add_row(baseline_label(baseline), loss, *([general] if has_general else []))
    return table


def _bar(weight: float, interval: tuple[float, float] | None) -> str:
    low, high = (_cells(limit) for limit in interval or (weight, weight))
    return "█" * low + "░" * (high - low)


def _cells(share: float) -> int:
    return round(_BAR_CELLS * min(1.0, max(0.0, share)))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", caption_justify="left")
