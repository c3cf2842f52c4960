"""What people see in the Prefect UI: tables of losses, weights and metrics, the gate's reasons, the model card.

Of all that a run has, the UI shows only its name at the top; so the name of a night that has no release says why.
"""

import logging
import re
from collections.abc import Sequence
from textwrap import shorten
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run as this_run

from flows.run import step_of
from tasks.errors import PreflightError, StoreError
from tasks.health_summaries import band_groups, cosine_text, pairs_of, percent
from tasks.merge_records import MergedModel
from tasks.night_records import Plan
from tasks.recipe import Recipe
from tasks.records import Evaluation, GateDecision, Release, Score
from tasks.registry.releases import open_registry
from tasks.summaries import NAMED_MODELS, summarise_evaluations
from tasks.trust_summaries import (
    baseline_label,
    effective_sentence,
    influence_sentence,
    range_text,
    scoring_sentences,
)
from tasks.weight_records import MergeWeights, Trust

logger = logging.getLogger(__name__)

_MAX_REASON_CHARACTERS = 200


def show_plan(recipe: Recipe, planned: Plan) -> None:
    """What takes part, what is left out and why, and what to be wary of."""
    rows = [
        f"| {model.name} | {' + '.join(part.model for part in model.parts)} | "
        f"{' + '.join(part.revision[:19] for part in model.parts)} |"
        for model in planned.candidates
    ]
    lines = ["| candidate | model | revision |", "|---|---|---|", *rows, ""]
    lines += [f"- left out: **{name}**: {reason}" for name, reason in planned.left_out.items()]
    lines += [f"- warning: {warning}" for warning in planned.warnings]
    lines += [f"\nmodel fingerprint `{planned.model_fingerprint}`"]
    create_markdown_artifact("\n".join(lines), key=_key(recipe.name, "plan"), description="What this run merges")


def show_weights(recipe: Recipe, scores: Sequence[Score], weights: MergeWeights) -> None:
    """One row per candidate: loss, weight, and how firm it is; above them what is doubtful and what changed."""
    by_name, trust = {score.candidate: score for score in scores}, weights.trust
    rows = [_weight_row(name, weight, by_name.get(name), trust) for name, weight in weights.weights.items()]
    notes = [f"Warning: {warning}" for warning in (*scoring_sentences(scores), *trust.warnings)]
    notes += [f"Since the live release: {change}" for change in trust.changes]
    measured = ", ".join(f"{baseline_label(each)} {_number(each.loss)}" for each in trust.baselines)
    notes += [f"Loss on the examples, mixed in memory: {measured}"] if measured else []
    notes += [effective_sentence(trust), influence_sentence(trust)]
    create_table_artifact(rows, key=_key(recipe.name, "weights"), description=_with_notes("Losses and weights", notes))


def show_health(recipe: Recipe, merged: MergedModel) -> None:
    """How far every candidate moved from the base, part by part of the model; pairs of candidates and what is odd."""
    if (health := merged.health) is None:
        return
    rows = [
        {"part of the model": part} | {name: percent(health.relative_norm(name, *groups)) for name in health.candidates}
        for part, groups in band_groups(health.groups).items()
    ]
    notes = [f"Warning: {warning}" for warning in health.warnings]
    notes += [
        f"{left} and {right}: cosine {cosine_text(cosine)}, sign conflicts {percent(conflicts)}"
        for left, right, cosine, conflicts in pairs_of(health)
    ]
    description = _with_notes("How far candidates moved from the base", notes)
    create_table_artifact(rows, key=_key(recipe.name, "health"), description=description)


def show_evaluations(recipe: Recipe, evaluations: Sequence[Evaluation]) -> None:
    """One row per task: the merged model beside the champion, the base and every candidate."""
    summary = summarise_evaluations(evaluations)
    named = [name for name in NAMED_MODELS if any(row[name] is not None for row in summary)]
    rows = [
        {"task": row["task"], "metric": row["metric"], "examples": row["n"]}
        | {name: _number(row[name]) for name in named}
        | {name: _number(value) for name, value in (row["candidates"] | row["anchors"]).items()}
        for row in summary
    ]
    if rows:
        create_table_artifact(rows, key=_key(recipe.name, "evaluations"), description="Before and after")


def show_gate(recipe: Recipe, decision: GateDecision, page: str | None = None) -> None:
    """The gate's answer with a sentence per rule and, of a night that it stopped, where its page is.

    A night that it stopped is renamed to say why.
    """
    answer = "passed" if decision.passed else "rejected"
    lines = [f"# Gate: {answer}", "", *(f"- {reason}" for reason in decision.reasons)]
    lines += ["", f"The whole night on one page: `{page}`"] if page else []
    create_markdown_artifact(
        "\n".join(lines),
        key=_key(recipe.name, "gate"),
        description=f"The gate: {answer}: {decision.reasons[0]}" if decision.reasons else f"The gate: {answer}",
    )
    if not decision.passed:
        _rename(UUID(this_run.id), f"refresh {recipe.name}: rejected: {decision.reasons[0]}")


def name_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Let the name of a run that failed say in which step and why; a hook for `on_failure` of a flow.

    Of several problems the first is named; the state's message and the log hold them all. A retry gives the run its
    own name back.
    """
    # The state holds the very exception where the flow ran in this process, and hooks run there.
    error: Any = state.result(raise_on_failure=False)
    step = step_of(error) if isinstance(error, BaseException) else None
    if isinstance(error, PreflightError):
        others = len(error.problems) - 1
        reason = f"{error.problems[0]} (and {others} more)" if others else error.problems[0]
    else:
        reason = str(error if isinstance(error, BaseException) else state.message)
    failed = f"failed in {step}" if step else "failed"
    _rename(flow_run.id, f"{flow_run.name}: {failed}: {shorten(reason, _MAX_REASON_CHARACTERS, placeholder=' ...')}")


def show_question(name: str, question: str) -> str:
    """What a person needs to know to approve a version of `name`; the key of the artifact that holds it."""
    key = _key(name, "question")
    create_markdown_artifact(question, key=key, description="What Resume asks")
    return key


def show_card(recipe: Recipe, release: Release) -> None:
    """The released model's card, without its YAML header. That it cannot be read takes nothing back: it is logged."""
    if recipe.publish is None:
        raise ValueError("only a recipe that publishes has a release to show")
    registry = open_registry(recipe.publish.to[0], recipe.name)
    try:
        card = registry.store.read_bytes(f"{registry.version_path(release.version)}/README.md").decode()
    except StoreError as error:
        logger.warning("the card of %s is not shown: %s", release.version, error)
        return
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    page = registry.store.uri(f"{registry.version_path(release.version)}/report.html")
    body += f"\nWhat decided, and what changed, on one page: `{page}`\n"
    create_markdown_artifact(body, key=_key(recipe.name, "card"), description=f"Model card of {release.version}")


def _weight_row(name: str, weight: float, score: Score | None, trust: Trust) -> dict[str, Any]:
    row: dict[str, Any] = {"candidate": name, "weight": _number(weight)}
    if name in trust.intervals:
        row |= {"95 % interval": range_text(trust.intervals[name])}
        row |= {"any one example left out": range_text(trust.leave_one_out[name])}
    if score:
        row |= {"loss": _number(score.loss), "standard error": _number(score.loss_stderr)}
        row |= {"examples": len(score.losses), "cached": score.cached}
    return row


def _with_notes(title: str, notes: Sequence[str]) -> str:
    """The UI shows a description as Markdown; a list keeps every sentence on its own line."""
    return "\n".join([title, "", *(f"- {note}" for note in notes if note)])


def _number(value: float | None) -> str:
    """Equal digits in a column; the UI would show a lone dash as a bullet."""
    return "none" if value is None else f"{value:.4f}"


def _key(name: str, what: str) -> str:
    """Artifact keys may hold lower-case letters, digits and dashes only."""
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{what}"


def _rename(run: UUID, name: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(run, name=name)
