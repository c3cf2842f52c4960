"""Evaluations side by side: one row per task, as manifests, tables and `--json` show them."""

from collections.abc import Sequence
from typing import Any

from tasks.records import Evaluation

NAMED_MODELS = ("merged", "champion", "base")


def summarise_evaluations(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row per evaluation task, in the order in which tasks appear.

    Returns:
        Rows with `task`, `metric`, `higher_is_better`, `n`, the values of `merged`, `champion` and `base` (None where
        there is none), `candidates` (name to value), `anchors` (reference of a release to value) and `stderr` of the
        merged value.
    """
    tasks = list(dict.fromkeys(evaluation.task for evaluation in evaluations))
    return [_row(task, [evaluation for evaluation in evaluations if evaluation.task == task]) for task in tasks]


def _row(task: str, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    by_model = {evaluation.model: evaluation for evaluation in evaluations}
    first, merged = evaluations[0], by_model.get("merged")
    named = {name: by_model[name].value if name in by_model else None for name in NAMED_MODELS}
    others = {name: evaluation.value for name, evaluation in by_model.items() if name not in NAMED_MODELS}
    # A candidate's name holds no colon, so an anchor is told by its reference.
    anchors = {name: value for name, value in others.items() if name.startswith("release:")}
    return {
        "task": task,
        "metric": first.metric,
        "higher_is_better": first.higher_is_better,
        "n": len(first.values),
        **named,
        "candidates": {name: value for name, value in others.items() if name not in anchors},
        "anchors": anchors,
        "stderr": merged.stderr if merged else None,
    }
