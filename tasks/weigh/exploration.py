"""Strategies that mix in memory, in the worker of a leased device, once per content; and what weights compare with."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from tasks.cache import ResultCache
from tasks.data.examples import read_rows
from tasks.devices import call_on_device
from tasks.errors import RecipeError
from tasks.mixtures.mixing import Measure, Mixing, MixtureLosses
from tasks.records import Score, from_json, to_json
from tasks.references import local_path
from tasks.settings import CandidateSettings
from tasks.unchanged import check_models_unchanged
from tasks.weigh.firmness import Firmness, assess_choice
from tasks.weigh.greedy import pick_soup
from tasks.weigh.search import search_omegas
from tasks.weigh.sweep import sweep_omegas, sweep_shares
from tasks.weigh.trials import Choice, Trials, share_equally, summarise
from tasks.weigh_settings import DEFAULT_GRID, WeighSettings
from tasks.weight_records import Baseline, Tried
from tasks.workers.main import counting_parts

logger = logging.getLogger(__name__)

ENGINE_VERSION = 3
"""Raised by hand when a change makes other choices of the same models and examples, or says more of them."""

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Explored:
    """What a strategy found, and the mixture in equal parts to hold it against."""

    chosen: Tried
    tried: tuple[Tried, ...]
    uniform: Tried | None
    """None where its losses are not finite."""
    firmness: Firmness
    warnings: tuple[str, ...] = ()


def explore_mixtures(
    mixing: Mixing,
    candidates: Sequence[CandidateSettings],
    scores: Sequence[Score],
    settings: WeighSettings,
    cache: ResultCache,
    report_progress: Report | None = None,
) -> Explored:
    """Let the strategy of `settings` try mixtures, or take from the cache what it chose before.

    Args:
        mixing: The models, on this machine, and the examples.
        candidates: The recipe's entries of the same candidates, in the same order.
        scores: Of these candidates, for `greedy`.
        settings: A strategy of `EXPLORING` and its numbers.
        cache: Asked by content: models with their names, examples and what changes losses or the choice.
        report_progress: Called as (mixtures measured, mixtures expected).

    Raises:
        RecipeError: the strategy cannot be applied to these candidates.
        NonFiniteError: no mixture has finite losses, or the general model has none on the general examples.
        CheckpointError: a model cannot be mixed in memory.
        InputError: a model's files were changed since the run was planned.
        DeviceError: the device or its worker process failed; subclasses say whether trying again may help.
    """
    own = settings.model_dump(mode="json", include={"strategy", "grid", "l1", "bounds", "n_mixtures"})
    limit = settings.general.max_loss_increase if settings.general else None
    parts = [[candidate.name, candidate.role, candidate.omega] for candidate in candidates]
    key = _cache_key(mixing) | {"settings": own, "max_loss_increase": limit, "parts": parts}
    is_cached = (entry := cache.get("exploration", key)) is not None
    if entry is None:
        losses = {score.candidate: score.loss for score in scores}
        entry = call_on_device(
            mixing.score.devices, explore, mixing, tuple(candidates), losses, settings,
            timeout_seconds=mixing.score.timeout_seconds * _count_mixtures(mixing, settings),
            report_progress=report_progress,
        )  # fmt: skip
        check_models_unchanged(cache, mixing.base, *mixing.candidates)
        cache.put("exploration", key, entry)
    found = from_json(Explored, entry)
    logger.info(
        "%s: %d mixtures measured, the chosen one with a loss of %.4f +- %.4f%s",
        settings.strategy, len(found.tried), found.chosen.loss, found.chosen.loss_stderr,
        " (cached)" if is_cached else "",
    )  # fmt: skip
    return found


def measure_mixtures(
    mixing: Mixing,
    weights: Sequence[Mapping[str, float]],
    cache: ResultCache,
    report_progress: Report | None = None,
) -> list[Tried]:
    """Measure mixtures whose weights are known; cache and errors as `explore_mixtures`.

    Raises:
        NonFiniteError: a mixture's losses are not finite.
    """
    asked = tuple(dict(each) for each in weights)
    key = _cache_key(mixing) | {"weights": [list(each.items()) for each in asked]}
    if (entry := cache.get("exploration", key)) is None:
        entry = call_on_device(
            mixing.score.devices, measure_each, mixing, asked,
            timeout_seconds=mixing.score.timeout_seconds * (1 + len(asked)), report_progress=report_progress,
        )  # fmt: skip
        check_models_unchanged(cache, mixing.base, *mixing.candidates)
        cache.put("exploration", key, entry)
    return [from_json(Tried, found) for found in entry["measured"]]


def baselines_of(
    mixing: Mixing, chosen: Tried, uniform: Tried | None, tried: Sequence[Tried], scores: Sequence[Score]
) -> tuple[Baseline, ...]:
    """The chosen mixture beside the uniform one and the best single candidate, for the trust report.

    The single candidate's losses are those of its score; on the general examples it is known only if it was tried.
    """
    best = min(scores, key=lambda score: score.loss)
    alone = share_equally([best.candidate], list(chosen.weights))
    # With another scale a skill with omega 1 is not the skill itself.
    is_tried = mixing.method == "linear" or mixing.scale == 1 or best.candidate == mixing.general
    general_loss = next((found.general_loss for found in tried if is_tried and found.weights == alone), None)
    return (
        Baseline("chosen", **asdict(chosen)),
        *([Baseline("uniform", **asdict(uniform))] if uniform else []),
        Baseline(best.candidate, alone, best.loss, best.loss_stderr, general_loss),
    )


def uniform_weights(mixing: Mixing) -> dict[str, float]:
    """Equal parts: shares of all candidates, or equal omegas of all skills, in either case with a sum of 1."""
    names = [candidate.name for candidate in mixing.candidates]
    general = mixing.general if mixing.method == "task_arithmetic" else None
    equal = share_equally([name for name in names if name != general], names)
    return equal if general is None else equal | {general: 1.0}


def explore(
    device: str,
    mixing: Mixing,
    candidates: tuple[CandidateSettings, ...],
    losses: Mapping[str, float],
    settings: WeighSettings,
) -> dict[str, Any]:
    """An `Explored` as JSON; runs in a worker process."""
    limit = _general_limit(device, mixing, settings)
    with _measuring(device, mixing, _count_mixtures(mixing, settings)) as measure:
        choice = _choose(measure, mixing, candidates, losses, settings, limit)
        uniform = Trials(measure).try_out(uniform_weights(mixing))
    firmness = assess_choice(choice, mixing.score.unit)
    return to_json(Explored(choice.chosen, choice.tried, uniform, firmness, choice.warnings))


def measure_each(device: str, mixing: Mixing, weights: tuple[dict[str, float], ...]) -> dict[str, Any]:
    """The losses of mixtures, as JSON; runs in a worker process."""
    with _measuring(device, mixing, len(weights)) as measure:
        return {"measured": [to_json(summarise(each, measure(each))) for each in weights]}


@contextmanager
def _measuring(device: str, mixing: Mixing, n_expected: int) -> Generator[Measure]:
    """Mixtures on the device; progress counts them, not the examples of each."""
    # Late, as torch is: the process that leases the device needs neither.
    from tasks.mixtures.space import open_mixtures

    n_measured = 0
    with open_mixtures(device, mixing) as space, counting_parts() as report:

        def measure(weights: Mapping[str, float]) -> MixtureLosses:
            nonlocal n_measured
            found = space.measure(weights)
            n_measured += 1
            report(min(n_measured, n_expected), n_expected)
            return found

        yield measure


def _choose(
    measure: Measure,
    mixing: Mixing,
    candidates: Sequence[CandidateSettings],
    losses: Mapping[str, float],
    settings: WeighSettings,
    limit: float | None,
) -> Choice:
    names, grid = [candidate.name for candidate in candidates], settings.grid or DEFAULT_GRID
    if settings.strategy == "greedy":
        return pick_soup(measure, {name: losses[name] for name in names}, limit)
    if settings.strategy == "search":
        l1, bounds, n_mixtures = settings.l1, settings.bounds, settings.n_mixtures
        return search_omegas(measure, names, mixing.general, l1=l1, bounds=bounds, n_mixtures=n_mixtures, limit=limit)
    if mixing.method == "task_arithmetic":
        omegas = {each.name: 1.0 if each.omega is None else each.omega for each in candidates}
        return sweep_omegas(measure, omegas, mixing.general, grid, limit)
    target = next((candidate.name for candidate in candidates if candidate.role == "target"), None)
    if target is None:
        raise RecipeError(
            "weigh.strategy: sweep varies the share of the candidate with role: target, and none takes part; if it is "
            "optional and was left out, make it usable again"
        )
    return sweep_shares(measure, names, target, grid, limit)


def _general_limit(device: str, mixing: Mixing, settings: WeighSettings) -> float | None:
    """The highest mean loss on the general examples that a mixture may have; None without such examples.

    Measured of the general model as it is on disk, since a linear merge need not have it among its candidates.
    """
    from tasks.losses.measure import measure_losses

    if mixing.general_examples is None or settings.general is None:
        return None
    model = next((each for each in mixing.candidates if each.name == mixing.general), mixing.base)
    adapter = model.adapter.folder if model.adapter else None
    rows = read_rows(local_path(mixing.general_examples.uri), mixing.model_type)
    losses = measure_losses(model.folder, mixing.model_type, rows, mixing.score, device, adapter)[0]
    return fmean(losses) + settings.general.max_loss_increase


def _count_mixtures(mixing: Mixing, settings: WeighSettings) -> int:
    """How many mixtures a strategy measures at most, the uniform one for comparison included."""
    counts = {"sweep": len(set(settings.grid or DEFAULT_GRID)), "greedy": len(mixing.candidates)}
    return counts.get(settings.strategy, settings.n_mixtures) + 1


def _cache_key(mixing: Mixing) -> dict[str, Any]:
    """Content and what changes losses; paths, batch size and devices do not. Names do: entries hold weights by name."""
    score, general = mixing.score, mixing.general_examples
    return {
        "engine": ENGINE_VERSION,
        "base": mixing.base.digest,
        "candidates": [[candidate.name, candidate.digest] for candidate in mixing.candidates],
        "method": mixing.method,
        "general": mixing.general,
        "scale": mixing.scale,
        "model_type": mixing.model_type,
        "examples": mixing.examples.sha256,
        "general_examples": general.sha256 if general else None,
        "loss": score.loss,
        "dtype": score.dtype,
        "max_length": score.max_length,
        **({"batch_size": score.batch_size} if score.loss == "lm_cocktail" else {}),
    }
