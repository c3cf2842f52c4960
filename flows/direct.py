"""The steps as plain calls, without Prefect and without a server: what `cocktail plan | score | merge | evaluate` run.

The same pure functions as in `flows/refresh.py`, with a thread pool over the same device leases in place of mapped
tasks. What one command does not need is not imported: merging with given weights loads neither transformers nor
scikit-learn.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from flows.comparing import evaluation_pairs, stored_evaluations
from flows.mixing import mixes, weigh_mixing
from flows.run import general_model, keep_usable, settings_of, settle_candidates
from tasks.cache import ResultCache
from tasks.devices import open_devices, resolve_devices
from tasks.download.candidate import download_checkpoint
from tasks.errors import CocktailError, PreflightError, RecipeError
from tasks.merge.health import HealthMode
from tasks.merge.leased import merge_leased
from tasks.merge.merge import check_output, merge_checkpoints
from tasks.merge.seen import prove_models
from tasks.merge_records import MergedModel
from tasks.night_records import Plan
from tasks.parameters import candidate_parameters, merge_parameters
from tasks.plan.data import read_data
from tasks.plan.plan import plan_refresh
from tasks.plan.resolve import resolve_checkpoint
from tasks.plan.space import cache_problems
from tasks.recipe import Recipe
from tasks.records import Checkpoint, Evaluation, ExampleSet, Score
from tasks.references import Place, make_absolute, parse_reference
from tasks.stores.folder import FolderStore
from tasks.stores.open import open_store
from tasks.values import parse_size
from tasks.weigh_settings import WeighSettings
from tasks.weight_records import MergeWeights

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Record = TypeVar("Record")
Report = Callable[[int, int], None]
Progress = Callable[[str], Report]
"""Makes the callback `(done, total)` of one piece of work from its label."""


def silent(label: str) -> Report:
    """A `Progress` that shows nothing."""
    return lambda done, total: None


def free_bytes(recipe: Recipe, cache: ResultCache) -> dict[str, int]:
    """Every place that a refresh writes files to, with the bytes that are free there; those without limit are left out.

    Raises:
        StoreError: a destination cannot be opened.
    """
    named = recipe.publish.to if recipe.publish else []
    destinations = [place for place in named if parse_reference(place).place is not Place.MLFLOW]
    found = {place: open_store(place).free_bytes() for place in (str(cache.folder / "work"), *destinations)}
    return {place: n_bytes for place, n_bytes in found.items() if n_bytes is not None}


def prepare(
    recipe: Recipe, cache: ResultCache, output: Path | None = None, progress: Progress = silent
) -> tuple[Plan, list[Checkpoint]]:
    """Plan, and bring base and candidates to this machine. Where the recipe would publish does not matter here.

    Args:
        recipe: What is to be scored or merged.
        cache: Asked for what is known already.
        output: Where a merged model will be written; None if none will.
        progress: Shows the download of each model.

    Raises:
        PreflightError: the work cannot succeed; all offenders are listed.
        CheckpointError: there is something at `output`.
        StoreError: `output` cannot be written, or a model cannot be fetched.
    """
    if output is not None:
        # Merging checks this, too, but perhaps hours of scoring later.
        FolderStore(check_output(output).parent).check_writable()
    # All of it on this machine, whatever a night shares with others.
    alone = {"runner": "threads", "merge": recipe.merge.model_copy(update={"split": False})}
    unpublished = recipe.model_copy(update={"publish": None, **alone})
    planned = plan_refresh(unpublished, cache, output, merges=output is not None)
    if output is not None or mixes(unpublished):
        # First and alone: it is often a candidate, too, and then already here.
        base = download_checkpoint(planned.base, cache, progress("download base"))
        planned = replace(planned, base=base)
    _, candidates = keep_usable(recipe, planned.candidates, _download_all(planned.candidates, cache, progress))
    return settle_candidates(recipe, planned, candidates), candidates


def score_candidates(
    recipe: Recipe, planned: Plan, candidates: Sequence[Checkpoint], cache: ResultCache, progress: Progress = silent
) -> tuple[Plan, list[Checkpoint], list[Score], MergeWeights]:
    """Losses where the strategy needs them, and the merge weights; unusable optional candidates are dropped."""
    scores: list[Score] = []
    usable = list(candidates)
    with open_devices(recipe.score.devices) if recipe.needs_examples else nullcontext():
        if recipe.needs_examples:
            usable, scores = _score_all(recipe, planned, candidates, cache, progress)
        planned = settle_candidates(recipe, planned, usable)
        # On the same devices: a worker that scored has all that mixing needs imported.
        weights = weigh_mixing(recipe, planned, usable, scores, cache, progress("weigh"))
    return planned, usable, scores, weights


def merge_candidates(
    recipe: Recipe,
    planned: Plan,
    candidates: Sequence[Checkpoint],
    weights: MergeWeights,
    output: Path,
    cache: ResultCache,
    progress: Progress = silent,
    health: HealthMode = "sample",
) -> MergedModel:
    """The merged model in the folder `output`, which must not exist or be empty.

    Raises:
        InputError: a model is no longer what was planned.
    """
    merge_there = partial(
        merge_checkpoints,
        planned.base,
        candidates,
        weights.settings,
        method=recipe.merge.method,
        general=general_model(recipe),
        parameters=merge_parameters(recipe.merge),
        candidate_parameters=candidate_parameters(recipe.merge, settings_of(recipe, candidates)),
        seed=recipe.merge.seed,
        dtype=recipe.merge.dtype,
        max_shard_bytes=parse_size(recipe.merge.max_shard_size),
        template=planned.base,
        output=output,
        embeddings=recipe.merge.embeddings,
        has_base=recipe.base is not None,
        health=health,
        seen=prove_models(cache, planned.base, *candidates),
    )
    return merge_leased(recipe.merge, merge_there, progress("merge"))


def evaluate_models(
    recipe: Recipe,
    data: Mapping[str, ExampleSet],
    models: Sequence[Checkpoint],
    cache: ResultCache,
    progress: Progress = silent,
) -> list[Evaluation]:
    """The recipe's evaluation tasks on any models, in parallel over the devices."""
    from tasks.evaluate.model import evaluate_model

    pairs = list(zip(*evaluation_pairs(recipe, data, models, []), strict=True))
    with open_devices(recipe.score.devices) as pool:
        names = (model.name for model in models)
        logger.info("evaluate: %s on %s (%s)", ", ".join(names), ", ".join(data), ", ".join(pool.devices))
        results = run_all(
            lambda pair: evaluate_model(
                *pair, recipe.model_type, recipe.score, cache, progress(f"evaluate {pair[0].name} on {pair[1].name}")
            ),
            pairs,
        )
    return _all_good(results)


def resolve_models(
    recipe: Recipe, references: Sequence[str], cache: ResultCache, progress: Progress = silent
) -> tuple[list[Checkpoint], dict[str, ExampleSet]]:
    """Any models, named by their references and brought to this machine, and the recipe's evaluation data.

    Raises:
        PreflightError: a model or data cannot be read; all of them are listed.
        StoreError: a model cannot be fetched.
        RecipeError: the recipe has no evaluation tasks.
    """
    if not recipe.evaluate:
        raise RecipeError("evaluate: the recipe names no evaluation tasks, so there is nothing to measure")
    problems, models = cache_problems(cache), []
    data = read_data(recipe.model_copy(update={"examples": None, "weigh": WeighSettings(strategy="uniform")}), cache)
    problems += data.findings.problems
    for reference in dict.fromkeys(references):
        try:
            models.append(resolve_checkpoint(reference, make_absolute(reference, Path.cwd()), None, cache))
        except (CocktailError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise PreflightError(problems)
    return _all_good(_download_all(models, cache, progress)), data.evaluation


def count_cached(recipe: Recipe, planned: Plan, cache: ResultCache) -> dict[str, tuple[int, int]]:
    """How many results need not be computed, of how many: scores, and evaluations of what there is before the merge."""
    from tasks.evaluate.model import is_evaluated
    from tasks.score.candidate import is_scored

    examples = planned.examples
    scored = [
        is_scored(candidate, examples, recipe.model_type, recipe.score, cache)
        for candidate in planned.candidates
        if examples is not None
    ]
    models = [planned.base, *planned.rivals, *planned.candidates]
    pairs = zip(
        *evaluation_pairs(recipe, planned.evaluation_data, models, stored_evaluations(recipe, planned)), strict=True
    )
    evaluated = [is_evaluated(*pair, recipe.model_type, recipe.score, cache) for pair in pairs]
    return {"scores": (sum(scored), len(scored)), "evaluations": (sum(evaluated), len(evaluated))}


def run_all(function: Callable[[Item], Record], items: Sequence[Item]) -> list[Record | BaseException]:
    """Call in threads, one per item; each result, or the error it ended with, in the order of the items.

    The threads have the caller's context, and with it the credentials of this run (`tasks.remote.access`).
    """

    def guarded(item: Item) -> Record | BaseException:
        try:
            return function(item)
        except Exception as error:
            return error

    contexts = [copy_context() for _ in items]
    pool = ThreadPoolExecutor(max_workers=max(1, len(items)), thread_name_prefix="cocktail")
    try:
        return list(pool.map(lambda context, item: context.run(guarded, item), contexts, items))
    finally:
        # Not to be waited for after Ctrl-C: threads that wait for a worker go on only when `open_devices` ends it.
        pool.shutdown(wait=False, cancel_futures=True)


def _download_all(
    checkpoints: Sequence[Checkpoint], cache: ResultCache, progress: Progress
) -> list[Checkpoint | BaseException]:
    return run_all(
        lambda checkpoint: download_checkpoint(checkpoint, cache, progress(f"download {checkpoint.name}")), checkpoints
    )


def _score_all(
    recipe: Recipe, planned: Plan, candidates: Sequence[Checkpoint], cache: ResultCache, progress: Progress
) -> tuple[list[Checkpoint], list[Score]]:
    from tasks.score.candidate import score_candidate

    examples = planned.examples
    if examples is None:
        raise ValueError("the plan of a recipe that scores candidates has examples")
    devices = ", ".join(resolve_devices(recipe.score.devices))
    logger.info("score: %d candidates on %s", len(candidates), devices)
    results = run_all(
        lambda candidate: score_candidate(
            candidate, examples, recipe.model_type, recipe.score, cache, progress(f"score {candidate.name}")
        ),
        candidates,
    )
    return keep_usable(recipe, candidates, results)


def _all_good(results: Sequence[Record | BaseException]) -> list[Record]:
    good: list[Record] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        good.append(result)
    return good
