"""Everything that can be known before any weight is read: what a refresh will do, or all that keeps it from it."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from tasks.cache import ResultCache
from tasks.devices import resolve_devices
from tasks.errors import CocktailError, NotFoundError, PreflightError, RecipeError, TransientStoreError
from tasks.night_records import Plan
from tasks.plan.chats import check_chat_templates
from tasks.plan.compatibility import ModelHeaders
from tasks.plan.data import RecipeData, length_problems, load_tokenizer, read_data
from tasks.plan.findings import Findings
from tasks.plan.fingerprints import with_fingerprints
from tasks.plan.layered import layered_problems, tabulate_layered
from tasks.plan.resolve import resolve_checkpoint
from tasks.plan.space import (
    cache_problems,
    count_bytes_to_download,
    count_bytes_to_read,
    count_bytes_to_write,
    count_weight_bytes,
    space_problems,
    work_folder_problem,
)
from tasks.plan.survey import Survey, survey_models
from tasks.recipe import Recipe
from tasks.records import Checkpoint
from tasks.references import Place, parse_reference
from tasks.registry.mlflow import check_mlflow
from tasks.registry.releases import open_registry
from tasks.registry.truth import check_is_truth
from tasks.tokens.vocabularies import TOKENIZER_FILE

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Releases:
    """Releases that the merged model will be compared with."""

    champion_version: str | None = None
    champion: Checkpoint | None = None
    anchors: list[Checkpoint] = field(default_factory=list[Checkpoint])
    problems: list[str] = field(default_factory=list[str])


def plan_refresh(recipe: Recipe, cache: ResultCache, work_folder: Path | None = None, *, merges: bool = True) -> Plan:
    """Resolve every reference and check all that can be checked; nothing is written outside the cache.

    Args:
        recipe: With or without `publish`: scoring and merging alone need no destination.
        cache: Remembers the digests of files; rows that stand in the recipe are kept there.
        work_folder: Where the merged model will be written before it is released; `work` in the cache by default.
        merges: Whether a merged model will be written at all; if not, no place has to have room for it.

    Raises:
        PreflightError: the run cannot succeed; all offenders are listed, not only the first.
    """
    work_folder = work_folder or cache.folder / "work"
    # First: everything else asks the cache.
    found = Findings(cache_problems(cache))
    survey, data, releases = survey_models(recipe, cache), read_data(recipe, cache), _find_releases(recipe, cache)
    for part in (survey.findings, data.findings, Findings(releases.problems)):
        found.extend(part)
    if survey.base is not None:
        found.extend(_check_lengths(recipe, survey.base, survey, data))
        found.problems += layered_problems(recipe, survey.base.views)
    if data.are_chats:
        found.extend(_check_chats(survey))
    bytes_to_write, bytes_to_download = (
        _bytes_to_write(recipe, survey),
        # Nodes read what they need where it is.
        0 if recipe.merge.split else _bytes_to_download(survey, releases, cache),
    )
    found.problems += _device_problems(recipe)
    if merges:
        found.extend(_check_places(recipe, work_folder))
    found.problems += space_problems(work_folder, [
        *([(str(cache.folder.absolute()), bytes_to_download)] if bytes_to_download else []),
        *((place, bytes_to_write) for place in _places(recipe, work_folder, cache) if merges),
    ])  # fmt: skip
    for warning in found.warnings:
        logger.warning("plan: %s", warning)
    for reason in survey.left_out.values():
        logger.warning("plan: left out, as it is optional: %s", reason)
    if found.problems or survey.base is None:
        raise PreflightError(found.problems)
    models = [survey.base, *survey.candidates.values()]
    plan = Plan(
        base=survey.base.checkpoint,
        candidates=tuple(model.checkpoint for model in survey.candidates.values()),
        examples=data.examples,
        general_examples=data.general,
        evaluation_data=data.evaluation,
        champion=releases.champion,
        champion_version=releases.champion_version,
        anchors=tuple(releases.anchors),
        model_fingerprint="",
        decision_fingerprint="",
        bytes_to_read=count_bytes_to_read(model.checkpoint for model in models),
        bytes_to_write=bytes_to_write,
        left_out=survey.left_out,
        warnings=tuple(found.warnings),
        distances=survey.distances,
        bytes_to_download=bytes_to_download,
        layered=tabulate_layered(recipe, survey.base.views),
        memory_bytes=max(count_weight_bytes(model.views, recipe.score.dtype) for model in models),
    )
    logger.info(
        "plan: %d candidates, %.1f MB to download, %.1f MB to read, %.1f MB to write, %d left out",
        len(plan.candidates), bytes_to_download / 1e6, plan.bytes_to_read / 1e6, bytes_to_write / 1e6,
        len(plan.left_out),
    )  # fmt: skip
    return with_fingerprints(recipe, plan)


def _find_releases(recipe: Recipe, cache: ResultCache) -> _Releases:
    """The champion and the releases that gate rules name."""
    found = _Releases()
    if recipe.publish is not None:
        try:
            registry = open_registry(recipe.publish.to[0], recipe.name)
            check_is_truth(registry, recipe.publish)
            state = registry.read_alias(recipe.publish.alias)
            if state is not None:
                found.champion_version = state.version
                found.champion = registry.checkpoint(state.version, "champion")
        except NotFoundError as error:
            found.problems.append(
                f"the champion ({recipe.publish.alias}): {error}; what is live was deleted or damaged: `cocktail "
                "rollback` points the alias at the last version that is whole"
            )
        except CocktailError as error:
            found.problems.append(f"the champion ({recipe.publish.alias}): {error}")
    named = [rule.against for rule in recipe.gate.rules if rule.against.startswith("release:")]
    for reference_text in dict.fromkeys(named):
        try:
            found.anchors.append(resolve_checkpoint(reference_text, reference_text, None, cache))
        except CocktailError as error:
            found.problems.append(f"gate rule against {reference_text}: {error}")
    return found


def _check_lengths(recipe: Recipe, base: ModelHeaders, survey: Survey, data: RecipeData) -> Findings:
    """Answers that no model of the recipe could read whole."""
    found = Findings()
    tokenizer = load_tokenizer(base.folder / TOKENIZER_FILE) if data.answers else None
    if tokenizer is None:
        if data.answers:
            found.warnings.append("the base has no tokenizer.json that can be read, so answers were not measured")
        return found
    models = (base, *survey.candidates.values())
    own_limits = (model.config.get("max_position_embeddings") for model in models)
    limit = min([recipe.score.max_length, *(own for own in own_limits if isinstance(own, int))])
    for where, rows in data.answers.items():
        found.problems += length_problems(rows, where, tokenizer, limit, recipe.model_type)
    return found


def _check_chats(survey: Survey) -> Findings:
    try:
        return check_chat_templates(survey.candidates)
    except CocktailError as error:
        return Findings([str(error)])


def _bytes_to_write(recipe: Recipe, survey: Survey) -> int:
    base = survey.base
    return count_bytes_to_write(base.checkpoint, survey.output_views or base.views, recipe.merge.dtype) if base else 0


def _bytes_to_download(survey: Survey, releases: _Releases, cache: ResultCache) -> int:
    """Of base, candidates and anchors; what was measured of the champion stands in its release."""
    models = [*([survey.base] if survey.base else []), *survey.candidates.values()]
    return count_bytes_to_download([*(model.checkpoint for model in models), *releases.anchors], cache)


def _device_problems(recipe: Recipe) -> list[str]:
    """Say which named devices are not here; what `auto` finds will do, and a cluster has devices of its own."""
    named: dict[str, list[str]] = {}
    if recipe.runner == "threads" and recipe.score.devices != "auto" and (recipe.needs_examples or recipe.evaluate):
        named["score.devices"] = recipe.score.devices
    if recipe.merge.device not in ("cpu", "auto"):
        named["merge.device"] = [recipe.merge.device]
    problems: list[str] = []
    for key, devices in named.items():
        try:
            resolve_devices(devices)
        except RecipeError as error:
            problems.append(f"{key}: {str(error).removeprefix('devices: ')}")
    return problems


def _check_places(recipe: Recipe, work_folder: Path) -> Findings:
    """Places that cannot be written. A destination after the first that is away for now is completed another night."""
    found = Findings([problem] if (problem := work_folder_problem(work_folder)) else [])
    for number, destination in enumerate(recipe.publish.to if recipe.publish else []):
        try:
            if parse_reference(destination).place is Place.MLFLOW:
                check_mlflow(destination)
            else:
                open_registry(destination, recipe.name).check_writable()
        except TransientStoreError as error:
            place = found.warnings if number else found.problems
            place.append(f"publish.to: {error}")
        except CocktailError as error:
            found.problems.append(f"publish.to: {error}")
    return found


def _places(recipe: Recipe, work_folder: Path, cache: ResultCache) -> list[str]:
    """Where the merged model is written: to the work folder, and from there to each destination."""
    # Nodes that share a merge write to where machines share the cache, if they do.
    work = [] if recipe.merge.split and cache.shared else [str(work_folder.absolute())]
    return [*work, *(recipe.publish.to if recipe.publish else [])]
