"""Weights that people write: shares of a linear merge, equal shares, and the omegas of task arithmetic."""

import math
from collections.abc import Mapping, Sequence

from tasks.errors import RecipeError
from tasks.layered import Setting, numbers_in
from tasks.settings import CandidateSettings
from tasks.shares import scale_shares, sum_problem, sums_of


def compute_uniform_weights(names: Sequence[str]) -> dict[str, float]:
    """Equal shares: the uniform model soup (https://arxiv.org/abs/2203.05482).

    Raises:
        ValueError: there are no names.
    """
    if not names:
        raise ValueError("there are no candidates to share the weight")
    return {name: 1 / len(names) for name in names}


def take_given_shares(given: Mapping[str, Setting], names: Sequence[str]) -> dict[str, Setting]:
    """The shares of the candidates that take part, scaled to sum to exactly 1.

    Args:
        given: Name to share for every candidate of the recipe; decimals, so their sum may miss 1 a little. Shares that
            differ from tensor to tensor sum to 1 in each of them.
        names: The candidates that take part, in the recipe's order. The share of one that was left out goes to the
            others in proportion.

    Returns:
        Name to share, in the order of `names`.

    Raises:
        RecipeError: a share is missing or not finite, all shares do not sum to 1 within WEIGHT_SUM_TOLERANCE, or those
            of the candidates that take part leave nothing to share, or not the same in every tensor.
    """
    _check_numbers(given, names)
    if problem := sum_problem(given):
        raise RecipeError(problem)
    shares = scale_shares(given, names)
    if shares is None:
        sums = [total for _, _, total in sums_of([given[name] for name in names])]
        least, most = f"{min(sums):.6g}", f"{max(sums):.6g}"
        found = least if least == most else f"from {least} to {most}, which differs from tensor to tensor,"
        raise RecipeError(
            f"weigh.weights: the candidates that take part ({', '.join(names) or 'none'}) have {found} of the "
            "weight; give weight to candidates that are not optional"
        )
    return shares


def take_given_weights(given: Mapping[str, Setting], names: Sequence[str]) -> dict[str, Setting]:
    """The weights of the candidates that take part as they were written, for methods without a sum rule.

    Raises:
        RecipeError: a weight is missing or not finite.
    """
    _check_numbers(given, names)
    return {name: given[name] for name in names}


def take_omegas(candidates: Sequence[CandidateSettings], given: Mapping[str, Setting] | None) -> dict[str, Setting]:
    """How much of each skill is added: general + sum of omega x (skill - base).

    Args:
        candidates: Those that take part, in the recipe's order. All but the one with role general are skills; without
            a general model the skills are added to the base.
        given: Name to omega where the recipe lists them under `weigh.weights`; None where each stands with its
            candidate.

    Returns:
        Name to omega in the order of `candidates`, 1 for the general model. Nothing is scaled: omegas have no sum rule.

    Raises:
        RecipeError: an omega is missing, not finite or written twice, or the general model's is not 1.

    Source: https://arxiv.org/abs/2410.12937 (Merge to Learn), https://arxiv.org/abs/2212.04089 (task arithmetic).
    """
    twice = [candidate.name for candidate in candidates if given is not None and candidate.omega is not None]
    if twice:
        raise RecipeError(f"omega of {', '.join(twice)}: weigh.weights says it too; write it in one place")
    numbers: Mapping[str, Setting] = given if given is not None else _omegas_of(candidates)
    names = [candidate.name for candidate in candidates]
    _check_numbers(numbers, names)
    for candidate in candidates:
        if candidate.role == "general" and numbers[candidate.name] != 1:
            raise RecipeError(
                f"candidate {candidate.name!r}: skills are added to the whole general model, so its weight is 1, "
                f"found {numbers[candidate.name]}"
            )
    return {name: numbers[name] for name in names}


def _omegas_of(candidates: Sequence[CandidateSettings]) -> dict[str, float]:
    omegas = {candidate.name: candidate.omega for candidate in candidates if candidate.omega is not None}
    general = {candidate.name: 1.0 for candidate in candidates if candidate.role == "general"}
    return general | omegas


def _check_numbers(numbers: Mapping[str, Setting], names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in numbers]:
        raise RecipeError(
            f"no weight for {', '.join(missing)}; list it under weigh.weights, or write omega beside the candidate "
            "(method task_arithmetic)"
        )
    broken = [
        f"{name} ({setting})"
        for name, setting in numbers.items()
        if not all(math.isfinite(number) for number in numbers_in(setting))
    ]
    if broken:
        raise RecipeError(f"weights must be finite numbers; found {', '.join(broken)}")
