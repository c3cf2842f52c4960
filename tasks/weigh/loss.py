"""Weights from losses: LM-Cocktail's softmax, with a target's share fixed beforehand where there is a target.

Source: https://arxiv.org/abs/2311.13534 (LM-Cocktail).
"""

import math
from collections.abc import Mapping


def compute_merge_weights(losses: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Weigh candidates by softmax(-loss / temperature), as in LM-Cocktail.

    Args:
        losses: Candidate name to mean loss on the example data, in nats. Lower is better.
        temperature: Spread of the weights, in nats. Near 0 picks the best candidate; large values
            approach a uniform average.

    Returns:
        Candidate name to weight, in the order of `losses`. Weights are >= 0 and sum to 1.

    Raises:
        ValueError: `losses` is empty or not finite, or `temperature` is not positive.

    Source: https://arxiv.org/abs/2311.13534
    """
    if not losses:
        raise ValueError("there are no losses to weigh; give one per candidate")
    broken = [f"{name} ({loss})" for name, loss in losses.items() if not math.isfinite(loss)]
    if broken:
        raise ValueError(f"losses must be finite; found {', '.join(broken)}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a positive number of nats, found {temperature}")
    best = min(losses.values())
    # Relative to the best loss every exponent is <= 0 and the best one is 0: no overflow, and the sum is at least 1.
    powers = {name: math.exp((best - loss) / temperature) for name, loss in losses.items()}
    total = math.fsum(powers.values())
    return {name: power / total for name, power in powers.items()}


def mix_with_target(losses: Mapping[str, float], target: str, alpha: float, temperature: float) -> dict[str, float]:
    """Give the target the share alpha and the other candidates (1 - alpha) x their softmax weights.

    This is LM-Cocktail's general form, alpha x M_target + (1 - alpha) x sum of w_i x M_i: the target's own loss does
    not enter, since it was fine-tuned on the very task that the examples come from.

    Args:
        losses: Candidate name to mean loss in nats, the target's included.
        target: Name of the fine-tune whose task matters most.
        alpha: Its share, from 0 to 1.
        temperature: Spread of the other candidates' weights, in nats.

    Returns:
        Candidate name to weight, in the order of `losses`. Weights are >= 0 and sum to 1.

    Raises:
        ValueError: the target is not among `losses` or is alone there, alpha is outside 0 to 1, or
            `compute_merge_weights` refuses the other losses.

    Source: https://arxiv.org/abs/2311.13534
    """
    if target not in losses:
        raise ValueError(f"the target {target!r} is not among the candidates ({', '.join(losses) or 'none'})")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share from 0 to 1, found {alpha}")
    others = {name: loss for name, loss in losses.items() if name != target}
    if not others:
        raise ValueError(f"the target {target!r} is the only candidate; there is nothing to mix it with")
    weights = compute_merge_weights(others, temperature)
    return {name: alpha if name == target else (1 - alpha) * weights[name] for name in losses}
