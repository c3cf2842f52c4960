"""What weights from losses hang on: the draw of the examples, any single one of them, and the temperature."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tasks.messages import plural
from tasks.records import Score
from tasks.weigh.resampling import Array, SoftmaxRule, compute_intervals, leave_one_out_weights, resample_weights
from tasks.weigh.trust import compute_effective_models
from tasks.weight_records import Trust

TEMPERATURE_FACTORS = (0.25, 0.5, 2.0, 4.0)
"""Other temperatures to look at, as multiples of the one that was set."""
ONE_EXAMPLE_MOVES = 0.1
"""How far leaving out one example may move a weight before that example is said to decide."""
ORDER_IS_OPEN = 0.16
"""Share of resamples with two candidates the other way round from which their order is open: one standard error."""
NEGLIGIBLE = 0.01
"""Weight below which nobody asks for the order of candidates."""
ROUNDING = 1e-9
"""Differences of weights below this are rounding."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The candidates that losses weigh, with their weights from all examples and from others."""

    names: tuple[str, ...]
    weights: Array
    """(candidates,): from all examples."""
    without: Array
    """(examples, candidates): row i is from all examples but i."""
    resampled: Array
    """(resamples, candidates)."""
    unit: str
    """What was drawn: each example, or batch."""


def add_sensitivity(
    trust: Trust, scores: Sequence[Score], temperature: float, target: str | None = None, alpha: float | None = None
) -> Trust:
    """Complete the trust report of weights from losses by what the examples and the temperature do to them.

    Args:
        trust: The report so far; its warnings stay first.
        scores: One per candidate, the target's included, in the order of the weights; finite, and over the same
            examples in the same order.
        temperature: Of the softmax, in nats; held as it is, also where it was found from the same losses.
        target: Candidate whose share is fixed beforehand, None where there is none.
        alpha: That share.

    Returns:
        The report with intervals, leave-one-out ranges (both need two examples) and other temperatures; as it was
        where there are fewer than two candidates for the losses to weigh.
    """
    names = tuple(score.candidate for score in scores)
    rule = SoftmaxRule(temperature, names.index(target), alpha or 0.0) if target else SoftmaxRule(temperature)
    weighed = [column for column in range(len(names)) if column != rule.target]
    if len(weighed) < 2:
        return trust
    losses = np.array([score.losses for score in scores], dtype=np.float64).T
    trust = _at_other_temperatures(trust, names, losses, rule)
    if (n := len(losses)) < 2:
        return trust
    full = rule(losses.mean(axis=0, keepdims=True))[0]
    without, resampled = leave_one_out_weights(losses, rule), resample_weights(losses, rule)
    low, high = compute_intervals(resampled, n)
    moves = np.abs(without - full).max(axis=1)
    example, matters, unit = int(moves.argmax()), bool(moves.max() > ROUNDING), scores[0].unit
    drawn = _Drawn(tuple(names[i] for i in weighed), full[weighed], without[:, weighed], resampled[:, weighed], unit)
    return replace(
        trust,
        warnings=(*trust.warnings, *_one_example_warnings(drawn), *_order_warnings(drawn)),
        intervals=ranges(names, low, high),
        leave_one_out=ranges(names, without.min(axis=0), without.max(axis=0)),
        most_influential=example + 1 if matters else None,
        influence=float(moves[example]) if matters else None,
        unit=unit,
    )


def _at_other_temperatures(trust: Trust, names: Sequence[str], losses: Array, rule: SoftmaxRule) -> Trust:
    temperatures = [factor * rule.temperature for factor in TEMPERATURE_FACTORS]
    means = losses.mean(axis=0, keepdims=True)
    weights = {
        f"{temperature:.6g}": dict(zip(names, replace(rule, temperature=temperature)(means)[0].tolist(), strict=True))
        for temperature in temperatures
        # A quarter of the least float is 0.
        if temperature > 0 and math.isfinite(temperature)
    }
    effective = {temperature: compute_effective_models(found) for temperature, found in weights.items()}
    return replace(trust, at_temperatures=weights, effective_at_temperatures=effective)


def _one_example_warnings(drawn: _Drawn) -> Iterator[str]:
    first, second = np.argsort(-drawn.weights, kind="stable")[:2]
    lead, n = drawn.without[:, second] - drawn.without[:, first], len(drawn.without)
    example, n_turning = int(lead.argmax()), int((lead > ROUNDING).sum())
    one, other, unit = drawn.names[first], drawn.names[second], drawn.unit
    if n_turning == 1:
        yield (
            f"one {unit} decides whether {one} or {other} weighs more: without {unit} {example + 1} it is {other} "
            f"({drawn.without[example, second]:.3f} against {drawn.without[example, first]:.3f})"
        )
    elif n_turning:
        yield (
            f"single {plural(unit)} decide whether {one} or {other} weighs more: without any one of {n_turning} of the "
            f"{n}, most clearly {unit} {example + 1}, it is {other}"
        )
    yield from far_move_warnings(drawn.names, drawn.weights, drawn.without, unit)


def far_move_warnings(names: Sequence[str], weights: Array, without: Array, unit: str) -> Iterator[str]:
    """Say which example moves a weight most, if that is far.

    Args:
        names: The candidates.
        weights: (candidates,): from all examples.
        without: (examples, candidates): row i is from all examples but i.
        unit: What they are called, in the singular.
    """
    moves = np.abs(without - weights)
    example, column = np.unravel_index(moves.argmax(), moves.shape)
    if moves[example, column] > ONE_EXAMPLE_MOVES + ROUNDING:
        yield (
            f"one {unit} of {len(without)} moves a weight far: without {unit} {example + 1}, {names[int(column)]} "
            f"would weigh {without[example, column]:.3f}, not {weights[column]:.3f}"
        )


def _order_warnings(drawn: _Drawn) -> Iterator[str]:
    """Of neighbours in the order of weights, but for the first two: `warn_about_losses` has looked at these."""
    order = [column for column in np.argsort(-drawn.weights, kind="stable") if drawn.weights[column] >= NEGLIGIBLE]
    open_pairs: list[str] = []
    for heavier, lighter in pairwise(order[1:]):
        lead = drawn.resampled[:, heavier] - drawn.resampled[:, lighter]
        # Candidates with the same losses never differ: they are warned about as such.
        if (share := float((lead < -ROUNDING).mean())) > ORDER_IS_OPEN:
            open_pairs.append(f"{drawn.names[heavier]} and {drawn.names[lighter]} ({100 * share:.0f} %)")
    if open_pairs:
        yield (
            f"the order of {', '.join(open_pairs)} is open: that often they are the other way round when the "
            f"{len(drawn.without)} {plural(drawn.unit)} are drawn again; more examples would tell"
        )


def ranges(names: Sequence[str], low: Array, high: Array) -> dict[str, tuple[float, float]]:
    """Name to least and largest weight."""
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
