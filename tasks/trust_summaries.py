"""How a trust report is worded, in tables and sentences alike: model card, artifacts, terminal."""

from collections.abc import Sequence

from tasks.records import Score
from tasks.weight_records import Baseline, Trust

CHOSEN = "chosen"
UNIFORM = "uniform"
"""Names of baselines; any other is the name of a candidate, measured alone."""


def range_text(limits: tuple[float, float] | None, digits: int = 3) -> str:
    """`0.250 to 0.750`; nothing where there is no range."""
    return "" if limits is None else f"{limits[0]:.{digits}f} to {limits[1]:.{digits}f}"


def baseline_label(baseline: Baseline) -> str:
    """What people call it."""
    mixtures = {CHOSEN: "the chosen mixture", UNIFORM: "the uniform mixture"}
    return mixtures.get(baseline.name, f"{baseline.name} alone")


def effective_sentence(trust: Trust) -> str:
    """As how many models the weights count, and at which temperature where that was not set but found."""
    found = "" if trust.temperature is None else f" at temperature {trust.temperature:.4g}, which was found for it"
    return f"Effective number of models: {trust.effective_models:.2f}{found}."


def influence_sentence(trust: Trust, digits: int = 3) -> str:
    """Which example the weights hang on most, and how far; nothing where none matters or none can be left out."""
    if trust.most_influential is None or trust.influence is None:
        return ""
    return (
        f"Most influential: {trust.unit} {trust.most_influential}, without which a weight would differ by "
        f"{trust.influence:.{digits}f}."
    )


def scoring_sentences(scores: Sequence[Score]) -> list[str]:
    """What was said while losses were measured, such as of texts that were cut: once, with all whom it was said of."""
    names: dict[str, list[str]] = {}
    for score in scores:
        for warning in score.warnings:
            names.setdefault(warning, []).append(score.candidate)
    return [f"losses of {', '.join(found)}: {warning}" for warning, found in names.items()]
