"""How far merge weights can be trusted: numbers and warnings for the person who reads them in the morning."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from tasks.layered import Setting, mean_over_depth
from tasks.messages import plural
from tasks.records import Score, standard_error
from tasks.trust_summaries import CHOSEN, baseline_label
from tasks.weight_records import Baseline, Trust

NEARLY_UNIFORM = 0.95
"""Share of the candidates that the effective number of models may reach before the losses hardly count."""
NEARLY_ALONE = 0.99
"""Share of one candidate from which the merge is next to a copy of it."""


def compute_effective_models(weights: Mapping[str, float]) -> float:
    """1 / sum of squared shares, of absolute weights: 1 when one has all the weight, N when N share it equally.

    Known as the inverse Simpson index, or Kish's effective sample size. 0 when all weights are 0.
    """
    largest = max((abs(weight) for weight in weights.values()), default=0.0)
    if largest == 0:
        return 0.0
    # Relative to the largest weight nothing overflows or vanishes when it is squared.
    relative = [abs(weight) / largest for weight in weights.values()]
    return math.fsum(relative) ** 2 / math.fsum(number * number for number in relative)


def assess_weights(weights: Mapping[str, float], warnings: Sequence[str] = ()) -> Trust:
    """The trust record of shares; `warnings` are those that the strategy has found itself."""
    return Trust(compute_effective_models(weights), (*warnings, *_lone_candidate_warnings(weights)))


def single_warning(unit: str) -> str:
    """What is doubtful where there is one `example` or `batch`."""
    return f"the losses come from a single {unit}: one more may turn the weights round"


def warn_about_losses(scores: Sequence[Score], weights: Mapping[str, float], temperature: float) -> tuple[str, ...]:
    """What makes weights from losses doubtful.

    Args:
        scores: Of the candidates that losses weigh (a target with a fixed share is not among them), over the same
            examples in the same order.
        weights: Name to weight of at least these candidates.
        temperature: Of the softmax, in nats.
    """
    if len(scores) < 2:
        return ()
    spread = max(score.loss for score in scores) - min(score.loss for score in scores)
    return (
        *_flatness_warnings(scores, weights, temperature, spread),
        *_identity_warnings(scores),
        *_noise_warnings(scores),
    )


def add_baselines(trust: Trust, baselines: Sequence[Baseline], target: str | None = None) -> Trust:
    """Put what was measured of simpler choices beside the weights; say so where one of them does as well.

    Args:
        trust: Of the chosen weights.
        baselines: `chosen` and those to beat, measured on the same examples.
        target: The candidate that was fine-tuned on the very task of the examples, if there is one. No mixture is
            expected to beat it there, so that is shown but not warned about.
    """
    warnings = (*trust.warnings, *_baseline_warnings(baselines, target))
    return replace(trust, baselines=tuple(baselines), warnings=warnings)


def warn_about_left_out(given: Mapping[str, Setting], names: Sequence[str]) -> tuple[str, ...]:
    """Say whose given weight went to the others because the candidate was left out."""
    shares = {name: mean_over_depth(setting) for name, setting in given.items() if name not in names}
    lost = [f"{name} ({share:g})" for name, share in shares.items() if share != 0]
    if not lost:
        return ()
    return (f"the weight of {', '.join(lost)}, which was left out, went to the other candidates in proportion",)


def warn_about_large_omegas(omegas: Mapping[str, float]) -> tuple[str, ...]:
    """Say which skills the rule |D| / |G| adds more than once: it was shown where the general data is the larger."""
    large = [f"{name} ({omega:.3g})" for name, omega in omegas.items() if omega > 1]
    if not large:
        return ()
    return (
        f"omega of {', '.join(large)} is above 1, since the general model was trained on less data than the skill; "
        "the merge goes beyond what training changed: compare with omegas up to 1",
    )


def _baseline_warnings(baselines: Sequence[Baseline], target: str | None) -> Iterator[str]:
    for chosen in (baseline for baseline in baselines if baseline.name == CHOSEN):
        as_good = [
            f"{baseline_label(rival)} ({rival.loss:.4f})"
            for rival in baselines
            if rival.name not in (CHOSEN, target) and rival.weights != chosen.weights and _is_as_good(rival, chosen)
        ]
        if as_good:
            yield (
                f"on the examples the chosen mixture (loss {chosen.loss:.4f} nats, standard error "
                f"{chosen.loss_stderr:.4f}) is not better than {' or '.join(as_good)}: what else it is good for must "
                "show in the evaluation"
            )


def _is_as_good(rival: Baseline, chosen: Baseline) -> bool:
    """Whether it does as well on the examples without forgetting more, as far as that was measured."""
    forgets_more = (
        rival.general_loss is not None and chosen.general_loss is not None and rival.general_loss > chosen.general_loss
    )
    return rival.loss <= chosen.loss and not forgets_more


def _lone_candidate_warnings(weights: Mapping[str, float]) -> Iterator[str]:
    if len(weights) == 1:
        yield f"{next(iter(weights))} is the only candidate: nothing is mixed"
        return
    total = math.fsum(abs(weight) for weight in weights.values())
    for name, weight in weights.items():
        if abs(weight) > NEARLY_ALONE * total:
            yield f"{name} takes {abs(weight) / total:.1%} of the weight: the merge is next to a copy of it"


def _flatness_warnings(
    scores: Sequence[Score], weights: Mapping[str, float], temperature: float, spread: float
) -> Iterator[str]:
    # A target's share is fixed by alpha, so only the shares that the losses decide are looked at.
    effective = compute_effective_models({score.candidate: weights[score.candidate] for score in scores})
    if effective > NEARLY_UNIFORM * len(scores):
        yield (
            f"the weights are nearly uniform (as if {effective:.2f} of {len(scores)} models shared equally): "
            f"temperature {temperature:g} is high for losses that differ by {spread:.3g} nats; a lower one lets the "
            "losses count"
        )


def _identity_warnings(scores: Sequence[Score]) -> Iterator[str]:
    names: dict[tuple[float, ...], list[str]] = {}
    for score in scores:
        names.setdefault(score.losses, []).append(score.candidate)
    for alike in names.values():
        if len(alike) > 1:
            yield (
                f"{' and '.join(alike)} have the same loss on every example: to these examples they are one model, "
                f"which counts {len(alike)} times"
            )


def _noise_warnings(scores: Sequence[Score]) -> Iterator[str]:
    best, second = sorted(scores, key=lambda score: score.loss)[:2]
    n = len(best.losses)
    if n == 1:
        yield single_warning(best.unit)
        return
    if best.losses == second.losses:
        return
    # All candidates saw the same examples, so the noise of a difference is that of the paired differences.
    differences = tuple(b - a for a, b in zip(best.losses, second.losses, strict=True))
    difference, error = fmean(differences), standard_error(differences)
    if difference <= error:
        yield (
            f"{best.candidate} and {second.candidate} cannot be told apart: their losses differ by {difference:.3g} "
            f"nats with a standard error of {error:.3g} over {n} {plural(best.unit)}; more examples would tell"
        )
