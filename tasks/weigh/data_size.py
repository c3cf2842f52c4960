"""Weights from how much data each candidate was trained on: what one can say without any example of the target task."""

import math
from collections.abc import Sequence

from tasks.errors import RecipeError
from tasks.method_problems import NO_GENERAL_SIZE, train_size_problem
from tasks.settings import CandidateSettings


def compute_data_shares(candidates: Sequence[CandidateSettings]) -> dict[str, float]:
    """Each candidate's share of all training data, |D_k| / sum of |D|, for a linear merge.

    Args:
        candidates: Those that take part, in the recipe's order, with their `train_size`. The unit does not matter
            (rows, tokens, steps), as long as it is one for all.

    Returns:
        Name to share, in the order of `candidates`. Shares are above 0 and sum to 1.

    Raises:
        RecipeError: a size is missing or not above 0; all of them are named. Or there are no candidates.

    Source: federated averaging, https://arxiv.org/abs/1602.05629. With a general model and one skill it is the
        data-weighted linear merge of Merge to Learn's authors, |G| / (|G| + |D|) and |D| / (|G| + |D|).
    """
    if not candidates:
        raise RecipeError("candidates: there are none to share the weight")
    sizes = _check_sizes(candidates)
    total = math.fsum(sizes.values())
    return {name: size / total for name, size in sizes.items()}


def compute_data_omegas(candidates: Sequence[CandidateSettings]) -> dict[str, float]:
    """How much of each skill is added: omega_k = |D_k| / |G|, with |G| the general model's data.

    Args:
        candidates: Those that take part, in the recipe's order: one with role general, the others skills, all with
            their `train_size` in one unit.

    Returns:
        Name to omega in the order of `candidates`, 1 for the general model; no sum rule.

    Raises:
        RecipeError: there is not exactly one general model, or a size is missing or not above 0; all are named.

    Source: https://arxiv.org/abs/2410.12937 (Merge to Learn), equation 7.
    """
    generals = [candidate.name for candidate in candidates if candidate.role == "general"]
    if not generals:
        raise RecipeError(NO_GENERAL_SIZE)
    if len(generals) > 1:
        raise RecipeError(f"candidates: {', '.join(generals)} all have role general; skills are added to one model")
    sizes = _check_sizes(candidates)
    return {name: size / sizes[generals[0]] for name, size in sizes.items()}


def _check_sizes(candidates: Sequence[CandidateSettings]) -> dict[str, int]:
    """Name to size of training data, all above 0."""
    if problem := train_size_problem(candidates):
        raise RecipeError(problem)
    return {candidate.name: candidate.train_size for candidate in candidates if candidate.train_size is not None}
