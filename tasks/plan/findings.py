"""What planning found: offenders that stop the run, and warnings that do not."""

import json
from dataclasses import dataclass, field

BY_TOKEN = "to merge by token all the same, write `merge: {embeddings: base}` or `union`"
"""What to do about vocabularies that differ."""


@dataclass(slots=True)
class Findings:
    """Sentences for people, in the order they were found."""

    problems: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    def extend(self, other: "Findings") -> None:
        """Take over what another check found."""
        self.problems += other.problems
        self.warnings += other.warnings


def shown(value: object) -> str:
    """A JSON value as a person would write it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
