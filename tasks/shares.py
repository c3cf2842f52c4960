"""Weights that people write and that must sum to 1: checked, and scaled when a candidate is left out."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from tasks.layered import Setting, distinct_places, is_layered, map_numbers, resolve

# Given weights of a linear merge are written by hand, in decimals; their sum may miss 1 by this much.
WEIGHT_SUM_TOLERANCE = 1e-3


def sums_of(settings: Collection[Setting]) -> Iterator[tuple[str, float, float]]:
    """Tensor name, depth and sum of all weights, wherever the sum can differ from the others."""
    for name, depth in distinct_places(settings):
        yield name, depth, math.fsum(resolve(setting, name, depth) for setting in settings)


def sum_problem(given: Mapping[str, Setting]) -> str | None:
    """Say that shares do not sum to 1, and where; None if they do, everywhere in the model."""
    wrong = [
        (name, depth, total) for name, depth, total in sums_of(given.values()) if abs(total - 1) > WEIGHT_SUM_TOLERANCE
    ]
    if not wrong:
        return None
    expected = "weigh.weights: a linear merge needs weights that sum to 1; these sum to "
    if not any(map(is_layered, given.values())):
        return f"{expected}{wrong[0][2]:.6g}"
    return expected + ", ".join(f"{total:.6g} {_where(name, depth)}" for name, depth, total in wrong)


def scale_shares(given: Mapping[str, Setting], names: Sequence[str]) -> dict[str, Setting] | None:
    """Given shares of the candidates that take part, scaled to sum to 1.

    The share of one that was left out goes to the others in proportion. Shares may be negative (extrapolation). Layered
    shares are scaled by one factor, so their sum must be the same in the whole model.

    Returns:
        Name to share in the order of `names`. None where next to nothing is left of them, since dividing by it would
        blow the others up, or where what is left differs from tensor to tensor.
    """
    sums = [total for _, _, total in sums_of([given[name] for name in names])]
    kept = math.fsum(sums) / len(sums)
    if kept < WEIGHT_SUM_TOLERANCE or max(sums) - min(sums) > 2 * WEIGHT_SUM_TOLERANCE:
        return None
    return {name: map_numbers(given[name], lambda share: share / kept) for name in names}


def _where(name: str, depth: float) -> str:
    return f"at depth {depth:.3g}" + (f" of tensors with {name!r} in their name" if name else "")
