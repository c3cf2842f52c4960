"""What planning found: offenders that stop the run, and warnings that do not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_LISTED = 5


@dataclass(slots=True)
class Findings:
    """Sentences for people, in the order they were found."""

    problems: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    def extend(self, other: "Findings") -> None:
        """Take over what another check found."""
        self.problems += other.problems
        self.warnings += other.warnings


def list_some(items: Sequence[str]) -> str:
    """The first few items, and how many more there are."""
    listed = ", ".join(items[:MAX_LISTED])
    return f"{listed} and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else listed


def shown(value: object) -> str:
    """A JSON value as a person would write it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
