"""Example and evaluation rows: JSON Lines in, checked rows out, bad lines named by number.

Two shapes, as in LM-Cocktail: `{"input", "output"}` for decoders and `{"query", "pos": [...], "neg": [...]}` for
encoders. The same rows are read where they are planned and where a worker computes on them, so a file that changes
in between is noticed by its digest.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tasks.errors import ExampleDataError
from tasks.records import ExampleSet

RowKind = Literal["decoder", "encoder", "classification"]

_MAX_PROBLEMS = 10


def read_rows(path: Path, kind: RowKind) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file (or of a JSON file that holds one list), checked.

    Args:
        path: Empty lines are skipped but counted, so that the numbers in errors are those of an editor.
        kind: `decoder` and `classification` rows have `input` and `output`; `encoder` rows `query`, `pos`, `neg`.

    Raises:
        ExampleDataError: no such file, no rows, or bad lines; all of them, up to ten, by number.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ExampleDataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ExampleDataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    numbered = _numbered_values(path, text)
    return _checked(f"{path}", "line", numbered, kind)


def check_rows(rows: Sequence[Mapping[str, Any]], kind: RowKind, source: str) -> list[dict[str, Any]]:
    """Rows that stand in the recipe itself, checked like those of a file; `source` names them in errors."""
    return _checked(source, "row", [(number, dict(row)) for number, row in enumerate(rows, start=1)], kind)


def describe_examples(path: Path, kind: RowKind) -> ExampleSet:
    """The record of a file of rows: its digest is of the rows, not of the file's white space."""
    rows = read_rows(path, kind)
    return ExampleSet(path.resolve().as_uri(), digest_rows(rows), len(rows))


def digest_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """sha256 of rows in their order; equal for equal content."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def row_text(row: Mapping[str, Any]) -> str:
    """What makes a row the same example elsewhere: its input or query, case and white space folded.

    Used to refuse evaluation rows that also chose the weights.
    """
    return " ".join(str(row.get("input", row.get("query", ""))).casefold().split())


def _numbered_values(path: Path, text: str) -> list[tuple[int, Any]]:
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as error:
            raise ExampleDataError(f"{path}: line {error.lineno}: this is no JSON: {error.msg}") from error
    # Not splitlines(): it also breaks at characters such as U+2028, which JSON allows inside a string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [(number, _parse(line)) for number, line in lines]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return error


def _checked(source: str, unit: str, numbered: Sequence[tuple[int, Any]], kind: RowKind) -> list[dict[str, Any]]:
    check = _check_pair if kind == "encoder" else _check_answer
    problems = [(number, problem) for number, row in numbered if (problem := _row_problem(row, check))]
    if problems:
        listed = "\n".join(f"  {unit} {number}: {problem}" for number, problem in problems[:_MAX_PROBLEMS])
        more = f"\n  and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise ExampleDataError(f"{source}: {len(problems)} of {len(numbered)} rows cannot be used:\n{listed}{more}")
    if not numbered:
        raise ExampleDataError(f"{source}: there are no rows")
    return [row for _, row in numbered]


def _row_problem(row: Any, check: Callable[[dict[str, Any]], str | None]) -> str | None:
    if isinstance(row, json.JSONDecodeError):
        return f"this is no JSON: {row.msg} (column {row.colno})"
    if not isinstance(row, dict):
        return f"expected an object, found {type(row).__name__}"
    return check(row)


def _check_answer(row: dict[str, Any]) -> str | None:
    if "messages" in row:
        return 'expected {"input", "output"}, found chat messages, which this version cannot score'
    for key in ("input", "output"):
        if not isinstance(row.get(key), str):
            return f'expected text in {key!r}, found {_found(row, key)}; a row is {{"input": "...", "output": "..."}}'
    return None if row["output"].strip() else "the output is empty, so there is nothing to predict"


def _check_pair(row: dict[str, Any]) -> str | None:
    shape = 'a row is {"query": "...", "pos": ["..."], "neg": ["..."]}'
    if not isinstance(row.get("query"), str) or not row["query"].strip():
        return f"expected text in 'query', found {_found(row, 'query')}; {shape}"
    for key in ("pos", "neg"):
        texts = row.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return f"expected a list of texts in {key!r}, found {_found(row, key)}; {shape}"
    return None if row.get("pos") else f"expected at least one text in 'pos'; {shape}"


def _found(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return f"no such key (keys: {', '.join(map(str, row)) or 'none'})"
    return "empty text" if row[key] == "" else type(row[key]).__name__
