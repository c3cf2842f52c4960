"""What people see in the Prefect UI: tables of losses, weights and metrics, the gate's reasons, the model card."""

import re
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.recipe import Recipe
from tasks.records import Evaluation, GateDecision, MergeWeights, Plan, Release, Score, local_path
from tasks.summaries import summarise_evaluations

_DIGITS = 4


def show_plan(recipe: Recipe, planned: Plan) -> None:
    """What takes part, what is left out and why, and what to be wary of."""
    rows = [f"| {model.name} | {model.model} | {model.revision[:19]} |" for model in planned.candidates]
    lines = ["| candidate | model | revision |", "|---|---|---|", *rows, ""]
    lines += [f"- left out: **{name}**: {reason}" for name, reason in planned.left_out.items()]
    lines += [f"- warning: {warning}" for warning in planned.warnings]
    lines += [f"\nmodel fingerprint `{planned.model_fingerprint}`"]
    create_markdown_artifact("\n".join(lines), key=_key(recipe, "plan"), description="What this run merges")


def show_weights(recipe: Recipe, scores: Sequence[Score], weights: MergeWeights) -> None:
    """One row per candidate: its loss with standard error, and its weight."""
    by_name = {score.candidate: score for score in scores}
    rows = [_weight_row(name, weight, by_name.get(name)) for name, weight in weights.weights.items()]
    notes = [f"effective models {weights.trust.effective_models:.2f}", *weights.trust.warnings]
    create_table_artifact(rows, key=_key(recipe, "weights"), description="Losses and weights. " + "; ".join(notes))


def show_evaluations(recipe: Recipe, evaluations: Sequence[Evaluation]) -> None:
    """One row per task: the merged model beside the champion, the base and every candidate."""
    rows: list[dict[str, Any]] = []
    for row in summarise_evaluations(evaluations):
        values = {name: row[name] for name in ("merged", "champion", "base")} | row["candidates"]
        shown = {name: "-" if value is None else round(value, _DIGITS) for name, value in values.items()}
        rows.append({"task": row["task"], "metric": row["metric"], "n": row["n"], **shown})
    if rows:
        create_table_artifact(rows, key=_key(recipe, "evaluations"), description="Before and after")


def show_gate(recipe: Recipe, decision: GateDecision) -> None:
    """The gate's answer with a sentence per rule."""
    answer = "passed" if decision.passed else "rejected"
    lines = [f"# Gate: {answer}", "", *(f"- {reason}" for reason in decision.reasons)]
    create_markdown_artifact("\n".join(lines), key=_key(recipe, "gate"), description=f"The gate: {answer}")


def show_card(recipe: Recipe, release: Release) -> None:
    """The released model's card, without its YAML header."""
    card = (local_path(release.uris[0]) / "README.md").read_text(encoding="utf-8")
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    create_markdown_artifact(body, key=_key(recipe, "card"), description=f"Model card of {release.version}")


def _weight_row(name: str, weight: float, score: Score | None) -> dict[str, Any]:
    row: dict[str, Any] = {"candidate": name, "weight": round(weight, _DIGITS)}
    if score:
        row |= {"loss": round(score.loss, _DIGITS), "stderr": round(score.loss_stderr, _DIGITS)}
        row |= {"examples": len(score.losses), "cached": score.cached}
    return row


def _key(recipe: Recipe, what: str) -> str:
    """Artifact keys may hold lower-case letters, digits and dashes only."""
    return f"{re.sub(r'[^a-z0-9]+', '-', recipe.name.lower()).strip('-')}-{what}"
