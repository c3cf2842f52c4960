"""How firmly the examples chose a mixture: what they would have chosen, had they been others."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.weigh.resampling import Array, compute_intervals, leave_one_out_weights, resample_weights
from tasks.weigh.sensitivity import ROUNDING, far_move_warnings, ranges
from tasks.weigh.trials import Choice, Contender
from tasks.weigh.trust import single_warning
from tasks.weight_records import Trust


@dataclass(frozen=True, slots=True)
class Firmness:
    """The part of a trust report that hangs on the examples; see `tasks.weight_records.Trust` for its keys."""

    intervals: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    leave_one_out: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    most_influential: int | None = None
    influence: float | None = None
    warnings: tuple[str, ...] = ()
    unit: str = "example"


@dataclass(frozen=True, slots=True)
class _LeastCost:
    """A rule of `tasks.weigh.resampling`: mean losses of (draws, mixtures) to the weights of the least cost."""

    weights: Array
    """(mixtures, candidates)."""
    handicaps: Array
    """(mixtures,)."""

    def __call__(self, mean_losses: Array) -> Array:
        """The first of equals is taken."""
        return self.weights[(mean_losses + self.handicaps).argmin(axis=1)]


def assess_choice(choice: Choice, unit: str = "example") -> Firmness:
    """Choose again among the mixtures within the limit, from other draws of the examples and without each of them.

    For `sweep` that is the strategy itself. What `greedy` and `search` would have tried besides is not known, so theirs
    are intervals among the mixtures that they did try. The limit stays as it was measured. Each loss belongs to a
    `unit`: an example, or a batch.
    """
    if not choice.contenders:
        return Firmness(unit=unit)
    names, contenders = tuple(choice.chosen.weights), _chosen_first(choice)
    weights = np.array([[each.weights[name] for name in names] for each in contenders])
    rule = _LeastCost(weights, np.array([each.handicap for each in contenders]))
    losses = np.array([each.losses for each in contenders]).T
    if (n := len(losses)) < 2:
        return Firmness(warnings=(single_warning(unit),), unit=unit)
    full, without = weights[0], leave_one_out_weights(losses, rule)
    low, high = compute_intervals(resample_weights(losses, rule), n)
    moves = np.abs(without - full).max(axis=1)
    example, matters = int(moves.argmax()), bool(moves.max() > ROUNDING)
    return Firmness(
        ranges(names, low, high),
        ranges(names, without.min(axis=0), without.max(axis=0)),
        example + 1 if matters else None,
        float(moves[example]) if matters else None,
        tuple(far_move_warnings(names, full, without, unit)),
        unit,
    )


def add_firmness(trust: Trust, firmness: Firmness) -> Trust:
    """The trust report with what hangs on the examples; its own warnings stay first."""
    return replace(
        trust,
        intervals=firmness.intervals,
        leave_one_out=firmness.leave_one_out,
        most_influential=firmness.most_influential,
        influence=firmness.influence,
        unit=firmness.unit,
        warnings=(*trust.warnings, *firmness.warnings),
    )


def _chosen_first(choice: Choice) -> Sequence[Contender]:
    """So that the chosen one wins against its equals, whatever the strategy prefers among them."""
    return sorted(choice.contenders, key=lambda each: each.weights != choice.chosen.weights)
