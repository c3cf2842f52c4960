"""Results as tables for people at a terminal, and as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from tasks.records import Evaluation, MergeWeights, Plan, Score, to_json
from tasks.summaries import NAMED_MODELS, summarise_evaluations

_BAR_CELLS = 20


def weights_json(scores: Sequence[Score], weights: MergeWeights) -> dict[str, Any]:
    """Weights, losses with standard errors, and how far to trust them."""
    return {
        "weights": weights.weights,
        "losses": {score.candidate: score.loss for score in scores},
        "loss_stderr": {score.candidate: score.loss_stderr for score in scores},
        "trust": to_json(weights.trust),
    }


def weights_table(scores: Sequence[Score], weights: MergeWeights) -> RenderableType:
    """One row per candidate: loss with standard error, weight, and the weight as a bar."""
    losses = {score.candidate: score.loss for score in scores}
    errors = {score.candidate: score.loss_stderr for score in scores}
    table = _loss_and_weight_table(weights.weights, losses, errors)
    table.caption = "; ".join([f"effective models {weights.trust.effective_models:.2f}", *weights.trust.warnings])
    return table


def evaluations_json(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row per task and model, with standard error and number of examples."""
    return [
        {
            "task": evaluation.task,
            "model": evaluation.model,
            "metric": evaluation.metric,
            "value": evaluation.value,
            "stderr": evaluation.stderr,
            "n": len(evaluation.values),
        }
        for evaluation in evaluations
    ]


def evaluations_table(evaluations: Sequence[Evaluation]) -> RenderableType:
    """One row per task, one column per model."""
    return _evaluation_table(summarise_evaluations(evaluations))


def plan_table(plan: Plan) -> RenderableType:
    """What a refresh would do, from headers alone."""
    table = Table(title="Plan", title_justify="left", show_header=False)
    for checkpoint in (plan.base, *plan.candidates):
        table.add_row(checkpoint.name, f"{checkpoint.model}\n{checkpoint.revision}, {checkpoint.size:,} bytes")
    for name, reason in plan.left_out.items():
        table.add_row(f"{name} (left out)", reason)
    table.add_section()
    table.add_row("reads", f"{plan.bytes_to_read:,} bytes")
    table.add_row("writes", f"{plan.bytes_to_write:,} bytes")
    if plan.examples:
        table.add_row("examples", f"{plan.examples.n}")
    for name, data in plan.evaluation_data.items():
        table.add_row(f"evaluation {name}", f"{data.n} examples")
    table.add_row("champion", plan.champion_version or "none yet")
    table.add_row("model fingerprint", plan.model_fingerprint)
    for warning in plan.warnings:
        table.add_row("warning", warning)
    return table


def refresh_summary(result: Mapping[str, Any]) -> list[RenderableType]:
    """Losses and weights, before and after, the gate's reasons, how it ended and where the release is."""
    parts: list[RenderableType] = []
    if result["weights"]:
        parts.append(_loss_and_weight_table(result["weights"], result["losses"], {}))
    if result["evaluation"]:
        parts.append(_evaluation_table(result["evaluation"]))
    reasons = result["gate"].get("reasons", []) if result["gate"] else []
    parts += [f"gate: {reason}" for reason in reasons]
    parts += [f"[bold]{result['status']}[/bold]: {result['message']}"]
    parts += [f"release: {uri}" for uri in result["release"]]
    if result["seconds"]:
        parts.append("seconds: " + ", ".join(f"{step} {seconds:.1f}" for step, seconds in result["seconds"].items()))
    return parts


def _loss_and_weight_table(
    weights: Mapping[str, float], losses: Mapping[str, float], errors: Mapping[str, float]
) -> Table:
    table = Table(title="Losses on the examples, and weights" if losses else "Weights", title_justify="left")
    table.add_column("candidate")
    if losses:
        table.add_column("loss (nats)", justify="right")
    table.add_column("weight", justify="right")
    table.add_column("")
    for name, weight in weights.items():
        error = f" ±{errors[name]:.3f}" if name in errors else ""
        loss = [f"{losses[name]:.3f}{error}" if name in losses else "-"] if losses else []
        table.add_row(name, *loss, f"{weight:.3f}", "█" * round(_BAR_CELLS * min(1.0, max(0.0, weight))))
    return table


def _evaluation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    others = list(dict.fromkeys(name for row in rows for name in row["candidates"]))
    present = [name for name in NAMED_MODELS if any(row[name] is not None for row in rows)]
    table = Table(title="Before and after", title_justify="left")
    for column in ("task", "metric", *present, *others):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for row in rows:
        values = [row[name] for name in present] + [row["candidates"].get(name) for name in others]
        table.add_row(row["task"], row["metric"], *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def releases_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One row per version, the oldest first."""
    table = Table(title="Releases", title_justify="left")
    for column in ("version", "released", "state", "weights", "evaluation"):
        table.add_column(column)
    for row in rows:
        state = [*row["aliases"], *(["blocked"] if row["blocked"] else [])]
        numbers = (row["weights"], row["evaluation"])
        shown = (", ".join(f"{name} {value:.3f}" for name, value in values.items()) for values in numbers)
        table.add_row(row["version"], row["created_at"], ", ".join(state), *shown)
    return table


def explanation_lines(explanation: Mapping[str, Any]) -> list[RenderableType]:
    """Decisions with their reasons, then what was done to each alias."""
    lines: list[RenderableType] = [f"[bold]{explanation['name']} {explanation.get('version', '')}[/bold]"]
    if explanation.get("evaluation"):
        lines.append(_evaluation_table(explanation["evaluation"]))
    for decision in explanation["decisions"]:
        lines.append(f"{decision['created_at']} {decision['status']} {decision['version'] or ''}".rstrip())
        lines += [f"  {reason}" for reason in decision["reasons"]]
    for row in explanation["aliases"]:
        lines.append(f"alias {row['alias']} points at {row['version']}")
        lines += [
            f"  {event['at']} {event['action']} {event['version']} by {event['by']}: {event['reason']}"
            for event in row["history"]
        ]
        lines += [f"  blocked: {block['version']}: {block['reason']}" for block in row["blocked"]]
    return lines
