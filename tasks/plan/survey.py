"""The models of a recipe, opened and compared with their base, before a weight is read whole."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.cache import ResultCache
from tasks.checkpoint import is_weight_file, read_json_object
from tasks.errors import CocktailError
from tasks.licences import licence_problems
from tasks.parallel import call_all
from tasks.plan.adapters import OpenedAdapter, check_adapter, open_adapters, take_adapter
from tasks.plan.ancestry import Ancestry
from tasks.plan.compatibility import ModelHeaders, check_compatibility, check_model_type, read_headers
from tasks.plan.descent import judge_ancestry, measure_descent
from tasks.plan.findings import Findings
from tasks.plan.left_out import remaining_problems
from tasks.plan.resolve import check_pin, resolve_model
from tasks.plan.tokens import TokenRows, any_rows, open_token_rows
from tasks.recipe import Recipe
from tasks.references import Place, canonical, parse_reference
from tasks.registry.address import split_destination
from tasks.settings import CandidateSettings
from tasks.sources.sketch import open_sketch
from tasks.tensors import TensorView

logger = logging.getLogger(__name__)

BASE = "base"


@dataclass(slots=True)
class Survey:
    """What is known of a recipe's models."""

    base: ModelHeaders | None = None
    """None if it cannot be read, or no candidate can that would stand in for it."""
    candidates: dict[str, ModelHeaders] = field(default_factory=dict[str, ModelHeaders])
    """Those that can take part, in the order of the recipe."""
    distances: dict[str, float] = field(default_factory=dict[str, float])
    """Candidate to its distance from the base."""
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Optional candidates that cannot take part, with the reason."""
    findings: Findings = field(default_factory=Findings)
    output_views: Mapping[str, TensorView] = field(default_factory=dict[str, TensorView])
    """Tensors of the merged model, as the base has them; of a union of vocabularies with more rows."""

    def refuse(self, candidate: CandidateSettings, problems: list[str]) -> None:
        """Note what is wrong with a candidate: a problem, or for an optional one a reason to leave it out."""
        if candidate.optional:
            self.left_out[candidate.name] = "; ".join(problems)
            self.candidates.pop(candidate.name, None)
            self.distances.pop(candidate.name, None)
        else:
            self.findings.problems += problems


def survey_models(recipe: Recipe, cache: ResultCache) -> Survey:
    """Open every model of a recipe and compare the candidates with the base; all that is wrong is in `findings`."""
    survey = Survey()
    opened, adapters = _open_all(recipe, cache), open_adapters(recipe, cache)
    for candidate in recipe.candidates:
        model, problems = _take_candidate(recipe, candidate, opened, adapters)
        if model is None:
            survey.refuse(candidate, problems)
        else:
            survey.candidates[candidate.name] = model
    survey.base = _take_base(recipe, opened, survey)
    if survey.base is not None:
        survey.findings.extend(check_model_type(survey.base, recipe.model_type))
        survey.findings.extend(_check_licence(recipe, survey.base))
        _compare_candidates(recipe, survey, survey.base, cache)
    survey.findings.warnings += _duplicate_warnings(survey.candidates)
    survey.findings.problems += remaining_problems(recipe, survey.left_out)
    return survey


def _open_all(recipe: Recipe, cache: ResultCache) -> dict[str, ModelHeaders | CocktailError]:
    """Every distinct reference, in its canonical form, to its model, or why it cannot be read.

    A reference is resolved once, however often it stands in the recipe: a branch that moves in between would make two
    models of it.
    """
    named = [*(candidate.model for candidate in recipe.candidates), *([recipe.base] if recipe.base else [])]
    references = list(dict.fromkeys(map(canonical, named)))
    with_pickles = {canonical(candidate.model) for candidate in recipe.candidates if candidate.allow_pickle}

    def open_model(reference: str) -> ModelHeaders:
        model = resolve_model(reference, cache, allow_pickle=reference in with_pickles)
        folder, sketch = open_sketch(model.checkpoint, model.source, model.fetched, cache)
        return read_headers(model.checkpoint, reference, folder, sketch, model.manifest)

    return dict(zip(references, call_all(open_model, references), strict=True))


def _take(
    opened: Mapping[str, ModelHeaders | CocktailError], reference: str, name: str, pinned: str | None, label: str
) -> ModelHeaders:
    """A model under the name it has in the recipe; the error that opening it ended with, or that of its pin."""
    found = opened[canonical(reference)]
    if isinstance(found, CocktailError):
        raise found
    check_pin(found.checkpoint, pinned)
    return replace(found, checkpoint=replace(found.checkpoint, name=name, model=reference), label=label)


def _take_candidate(
    recipe: Recipe,
    candidate: CandidateSettings,
    opened: Mapping[str, ModelHeaders | CocktailError],
    adapters: Mapping[str, OpenedAdapter | CocktailError],
) -> tuple[ModelHeaders | None, list[str]]:
    """A candidate with its adapter; or why one of them, or both, cannot be had."""
    model = adapter = None
    errors: list[CocktailError] = []
    try:
        model = _take(opened, candidate.model, candidate.name, candidate.digest, _label(recipe, candidate))
    except CocktailError as error:
        errors.append(error)
    try:
        adapter = take_adapter(adapters, candidate)
    except CocktailError as error:
        errors.append(error)
    if model is None or errors:
        return None, [f"candidate {candidate.name!r}: {error}" for error in errors]
    return (model if adapter is None else model.with_adapter(adapter)), []


def _label(recipe: Recipe, candidate: CandidateSettings) -> str:
    label = f"candidate {candidate.name!r}"
    if recipe.base is None and candidate is not recipe.candidates[0]:
        label += " (compared with the first candidate, as the recipe names no base)"
    return label


def _take_base(
    recipe: Recipe, opened: Mapping[str, ModelHeaders | CocktailError], survey: Survey
) -> ModelHeaders | None:
    """The recipe's base; where it names none, the first candidate that can be read, without its adapter."""
    if recipe.base is not None:
        try:
            return _take(opened, recipe.base, BASE, recipe.base_digest, "the base")
        except CocktailError as error:
            survey.findings.problems.append(f"the base: {error}")
            return None
    first = next(iter(survey.candidates.values()), None)
    return first and replace(
        first, checkpoint=replace(first.checkpoint.without_adapter, name=BASE), label="the base", adapter=None
    )


def _compare_candidates(recipe: Recipe, survey: Survey, base: ModelHeaders, cache: ResultCache) -> None:
    """Hold every candidate against the base: compatibility, drift, descent."""
    descent = measure_descent(base, list(survey.candidates.values()), cache)
    of_base = descent[base.checkpoint.digest]
    if isinstance(of_base, CocktailError):
        # Nothing was compared then, and saying so for every candidate would hide the reason.
        survey.findings.problems.append(f"the base: {of_base}")
        return
    for name in of_base.non_finite:
        survey.findings.problems.append(f"the base: tensor {name!r} holds NaN or infinity; the model is broken")
    rows, fitting = open_token_rows(recipe.merge.embeddings, base, survey.findings), list[ModelHeaders]()
    for candidate in recipe.candidates:
        model = survey.candidates.get(candidate.name)
        if model is None:
            continue
        ancestry = descent[model.checkpoint.without_adapter.digest]
        found = _check_candidate(recipe, base, model, ancestry, rows)
        if isinstance(ancestry, Ancestry) and ancestry.distance is not None:
            survey.distances[candidate.name] = ancestry.distance
        if found.problems:
            survey.refuse(candidate, found.problems)
        else:
            survey.findings.warnings += found.warnings
            fitting.append(model)
    survey.output_views = rows.output_views(fitting) if rows else base.views


def _check_candidate(
    recipe: Recipe,
    base: ModelHeaders,
    model: ModelHeaders,
    ancestry: Ancestry | CocktailError,
    rows: TokenRows | None,
) -> Findings:
    found = Findings()
    try:
        found.extend(_check_drift(recipe, model))
        # The base itself fits, and is a usual candidate.
        if model.checkpoint.without_adapter.digest != base.checkpoint.digest:
            found.extend(check_compatibility(base, model, any_rows(recipe.merge.embeddings, rows, base)))
            found.extend(rows.check(model) if rows and not found.problems else Findings())
    except CocktailError as error:
        found.problems.append(f"{model.label}: {model.explain(error)}")
    if model.adapter is not None:
        found.extend(check_adapter(model.adapter, model.checkpoint.model, model.views, model.label))
    found.extend(_check_licence(recipe, model))
    if isinstance(ancestry, CocktailError):
        found.problems.append(f"{model.label}: {ancestry}")
    else:
        found.extend(judge_ancestry(ancestry, model.label, recipe.allow_unrelated))
    return found


def _check_drift(recipe: Recipe, model: ModelHeaders) -> Findings:
    """A night that mixes its own last release in again moves away from its base, a little every night."""
    if recipe.allow_drift or _released_name(model) != recipe.name:
        return Findings()
    problem = (
        f"{model.label}: {model.checkpoint.model} is itself a release of {recipe.name}; merges of merges drift: mix "
        "the models it was made of, or set allow_drift: true"
    )
    return Findings([problem])


def _check_licence(recipe: Recipe, model: ModelHeaders) -> Findings:
    allowed = recipe.publish.allow_licences if recipe.publish else None
    if allowed is None:
        return Findings()
    own, *adapters = model.checkpoint.parts
    licences = {model.label: own.licence, **{f"{model.label}, its adapter": part.licence for part in adapters}}
    return Findings(licence_problems(licences, allowed))


def _released_name(model: ModelHeaders) -> str | None:
    """What a model was released as; None if it is no release."""
    reference = parse_reference(model.checkpoint.model)
    if reference.place is Place.RELEASE:
        return split_destination(reference.location).name
    return read_json_object(model.manifest).get("name") if model.manifest else None


def _duplicate_warnings(candidates: Mapping[str, ModelHeaders]) -> list[str]:
    by_weights: dict[tuple[str, ...], list[str]] = {}
    for name, model in candidates.items():
        weights = [file.sha256 for path, file in model.checkpoint.files.items() if is_weight_file(path)]
        adapters = [part.digest for part in model.checkpoint.parts[1:]]
        by_weights.setdefault((*sorted(weights), *adapters), []).append(name)
    return [
        f"candidates {' and '.join(repr(name) for name in names)} are one and the same model, which so counts "
        f"{len(names)} times"
        for names in by_weights.values()
        if len(names) > 1
    ]
