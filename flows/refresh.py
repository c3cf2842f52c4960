"""The nightly model refresh: a recipe goes in, a released model comes out, or a reason why not.

Read `refresh` from top to bottom: that is what happens at night. Every step is a Prefect task in
`tasks/<step>/task.py`, a thin face over pure functions in the same folder. Tasks hand each other records (references,
digests, numbers); tensors stay inside a step.
"""

from typing import Any

from prefect import flow, unmapped
from prefect.client.schemas.objects import State

from flows.approval import request_approval
from flows.artifacts import name_failure, show_evaluations, show_gate, show_health, show_plan, show_weights
from flows.comparing import (
    evaluation_pairs,
    in_recipe_order,
    is_sane,
    live_weights,
    rivals_to_measure,
    stored_evaluations,
)
from flows.conclusion import conclude
from flows.connections import with_connections
from flows.events import announce_failure, announce_unchanged, announce_weights
from flows.logs import let_steps_speak
from flows.mixing import mixing_of
from flows.outcome import end, find_past_decision
from flows.run import (
    StepClock,
    catch_up,
    check_destination,
    keep_scored,
    report_of,
    settings_of,
    settle_candidates,
)
from flows.runners import runner_of
from flows.split_merge import bring_models, clear_place, merge_place, merge_split
from tasks.cache import open_cache
from tasks.evaluate.task import check, evaluate
from tasks.faces import outcomes, settled
from tasks.forms import OptionalFile
from tasks.gate.task import gate
from tasks.merge.task import merge
from tasks.plan.task import plan
from tasks.recipe import Recipe
from tasks.score.task import score
from tasks.settings import CacheSettings
from tasks.weigh.changes import note_changes
from tasks.weigh.task import weigh

DEFAULT_CACHE = CacheSettings()


@flow(
    name="refresh",
    flow_run_name="refresh {recipe.name}",
    persist_result=True,
    result_serializer="json",
    on_failure=[announce_failure, name_failure],
)
@with_connections
def refresh(
    recipe: Recipe,
    force: bool = False,
    dry_run: bool = False,
    cache: CacheSettings = DEFAULT_CACHE,
    page: OptionalFile = None,
) -> State[dict[str, Any]]:
    """Merge the recipe's candidates into one model and release it if the gate lets it pass.

    Args:
        recipe: What to mix, how to weigh and merge it, what to check and where to publish.
        force: Do the work even if the same inputs were decided before.
        dry_run: Stop before publishing; nothing is written to a destination.
        cache: Where results and downloads are kept between runs.
        page: A file on the machine that runs this, for the page of a dry run; other nights keep theirs at the
            destination.
    """
    let_steps_speak()
    clock, common = StepClock(), unmapped(cache)
    with clock.step("plan"):
        check_destination(recipe, dry_run)
        planned = plan(recipe, cache)
        show_plan(recipe, planned)
    if not force and (decided := find_past_decision(recipe, planned)):
        if not dry_run:
            catch_up(recipe, open_cache(cache))
            announce_unchanged(recipe, decided)
            request_approval(recipe, decided.version, planned.champion_version)
        clear_place(recipe, planned, cache)
        return end(decided)

    with clock.step("download"):
        (base,) = settled(bring_models(recipe, [planned.base], cache))
        # Not waited for: a candidate is scored as soon as it is here, while the next one comes.
        downloads = bring_models(recipe, planned.candidates, cache)

    model_type, precision = unmapped(recipe.model_type), unmapped(recipe.score)
    with runner_of(recipe, planned):
        with clock.step("score"):
            examples = unmapped(planned.examples)
            scoring = score.map(downloads, examples, model_type, precision, common) if recipe.needs_examples else None
            candidates, scores = keep_scored(recipe, planned.candidates, outcomes(downloads), outcomes(scoring))
            planned = settle_candidates(recipe, planned, candidates)

        with clock.step("weigh"):
            chosen, mixing = settings_of(recipe, candidates), mixing_of(recipe, planned, base, candidates)
            weights = weigh.submit(chosen, scores, recipe.weigh, recipe.merge.method, mixing, cache).result()
            weights = note_changes(weights, live_weights(recipe, planned))
            show_weights(recipe, scores, weights)
            if not dry_run:
                announce_weights(recipe, weights)

    with merge_place(recipe, planned, cache) as place:
        with clock.step("merge"):
            if recipe.merge.split:
                merged = merge_split(recipe, planned, base, candidates, weights, place, cache)
            else:
                merged = merge(base, candidates, weights, recipe.merge, chosen, place, cache, recipe.base is not None)
            show_health(recipe, merged)

        with clock.step("evaluate"), runner_of(recipe, planned):
            sanity = check.submit(merged.checkpoint, base, recipe.model_type, recipe.score, cache).result()
            stored = stored_evaluations(recipe, planned)
            rivals = settled(bring_models(recipe, rivals_to_measure(recipe, planned, stored), cache))
            models = [merged.checkpoint, base, *rivals, *candidates] if is_sane(sanity) else []
            pairs = evaluation_pairs(recipe, planned.evaluation_data, models, stored)
            measured = evaluate.map(*pairs, model_type, precision, common).result()
            evaluations = in_recipe_order(recipe, [*stored, *measured])
            show_evaluations(recipe, evaluations)

        with clock.step("gate"):
            decision = gate(recipe.gate.rules, evaluations, [candidate.name for candidate in candidates], sanity)
            show_gate(recipe, decision)

        found = report_of(recipe, planned, scores, weights, merged, evaluations, decision, clock.seconds, sanity)
        return conclude(recipe, found, clock, dry_run=dry_run, page=page, cache=cache)
