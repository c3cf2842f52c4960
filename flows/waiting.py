"""A version that waits for a person: what they need to know, and whether the question still stands."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.errors import AliasConflictError
from tasks.publish.markdown import format_number, render_table
from tasks.publish.report.page import REPORT_FILE
from tasks.registry.files import AliasState
from tasks.registry.refusals import find_refusal
from tasks.registry.releases import Registry


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that waits for a person's answer."""

    registry: Registry
    version: str
    alias: str
    compared_with: str | None
    """What was live when the gate let the version pass; None if nothing was."""

    @property
    def by_hand(self) -> str:
        """The command that sends it live."""
        words = ["cocktail", "promote", self.registry.location, self.version]
        if self.alias != "champion":
            words += ["--alias", self.alias]
        return f"{shlex.join(words)} --reason WHY"


def find_end(waiting: Waiting) -> tuple[Literal["Approved", "Refused", "Blocked"], str] | None:
    """How the question ended and a sentence that tells it, if it did: by an answer, or by a command."""
    state = waiting.registry.read_alias(waiting.alias)
    if state is not None and state.version == waiting.version:
        said = f"{waiting.alias} points at {state.version}: {state.promoted_by} moved it at {state.promoted_at}"
        return "Approved", f"{said}: {state.reason}"
    if (refusal := find_refusal(waiting.registry, waiting.version)) is not None:
        return "Refused", f"{waiting.version}: {refusal.gate.reasons[0]}"
    for block in waiting.registry.blocks(strict=True):
        if block.version == waiting.version:
            return "Blocked", f"{block.version} was rolled back by {block.blocked_by}: {block.reason}"
    return None


def read_compared(waiting: Waiting) -> AliasState | None:
    """The alias as the gate knew it; None if there was none.

    Raises:
        AliasConflictError: another version is live by now.
    """
    state = waiting.registry.read_alias(waiting.alias)
    live = state.version if state else None
    if live != waiting.compared_with:
        winner = f": {state.promoted_by} moved it at {state.promoted_at} ({state.reason})" if state else ""
        raise AliasConflictError(
            f"{waiting.registry.location}: {waiting.alias} points at {live or 'nothing'} now{winner}; the gate "
            f"compared {waiting.version} with {waiting.compared_with or 'nothing'}, so it is not sent live and waits "
            f"on; refresh again to compare with what is live, or send it live all the same: `{waiting.by_hand}`"
        )
    return state


def ask_briefly(waiting: Waiting, hours: float, artifact: str) -> str:
    """The question for the form, as Markdown: short, since the form shows some ten lines and scrolls the rest.

    Args:
        waiting: What waits.
        hours: How long there is to answer.
        artifact: Key of the artifact that holds what `describe_waiting` says.
    """
    passed = len(waiting.registry.read_manifest(waiting.version)["gate"]["reasons"])
    rules = "1 rule" if passed == 1 else f"{passed} rules"
    return "\n\n".join([
        _question(waiting),
        f"The gate let it pass ({rules}). What was measured, and more, is in this run's artifact `{artifact}`.",
        f"Without an answer within {hours:g} hours this run fails, and the version waits on.",
    ])  # fmt: skip


def describe_waiting(waiting: Waiting, hours: float) -> str:
    """All that a person needs to know to answer, as Markdown."""
    registry = waiting.registry
    manifest = registry.read_manifest(waiting.version)
    parts = [_question(waiting)]
    if rows := [_evaluation_row(row) for row in manifest["evaluation"]]:
        parts.append(render_table(("task", "metric", "this version", "live", "base"), rows))
    if rows := [_model_row(model) for model in manifest["models"]]:
        parts.append(render_table(("model", "weight", "loss"), rows))
    parts.append("\n".join(f"- {reason}" for reason in manifest["gate"]["reasons"]))
    if REPORT_FILE in manifest["files"]:
        report = registry.store.uri(f"{registry.version_path(waiting.version)}/{REPORT_FILE}")
        parts.append(f"All of it on one page: `{report}`")
    parts.append(
        f"Without an answer within {hours:g} hours this run fails, and the version waits on: `{waiting.by_hand}`. A "
        "refusal keeps this model from going live, and from being asked about again, until `cocktail unblock`."
    )
    return "\n\n".join(part for part in parts if part)


def _question(waiting: Waiting) -> str:
    live = f"points at `{waiting.compared_with}`" if waiting.compared_with else "points at nothing yet"
    return f"**Shall `{waiting.version}` of `{waiting.registry.location}` go live?** `{waiting.alias}` {live}."


def _evaluation_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    metric = f"{row['metric']} {'↑' if row['higher_is_better'] else '↓'}"
    return row["task"], metric, *(format_number(row[name]) for name in ("merged", "champion", "base"))


def _model_row(model: Mapping[str, Any]) -> tuple[str, ...]:
    return model["name"], format_number(model["weight"]), format_number(model["loss"])
