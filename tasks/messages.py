"""Lists in messages: the first few offenders, and how many more there are; nouns of what there are several of."""

from collections.abc import Sequence


def list_some(items: Sequence[str], most: int = 10) -> str:
    """On one line: `a, b and 3 more`."""
    listed = ", ".join(items[:most])
    return f"{listed} and {len(items) - most} more" if len(items) > most else listed


def plural(noun: str) -> str:
    """examples; batches."""
    return f"{noun}es" if noun.endswith("ch") else f"{noun}s"


def list_lines(items: Sequence[str], most: int = 10) -> str:
    """On lines of their own, indented, each with a newline in front."""
    listed = "".join(f"\n  {item}" for item in items[:most])
    return f"{listed}\n  and {len(items) - most} more" if len(items) > most else listed
