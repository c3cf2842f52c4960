"""Example and evaluation rows: JSON Lines in, checked rows out, bad lines named by number.

As in LM-Cocktail: `{"input", "output"}` for decoders and encoder-decoders, `{"query", "pos": [...], "neg": [...]}` for
encoders and rerankers. Decoders also take `{"messages": [{"role", "content"}, ...]}`. The same rows are read where they
are planned and where a worker computes on them, so a file that changes in between is noticed by its digest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tasks.data.lines import check_object, parse_row, read_lines, refuse_rows
from tasks.errors import ExampleDataError
from tasks.records import ExampleSet
from tasks.settings import ModelType

RowKind = ModelType | Literal["classification"]


def read_rows(path: Path, kind: RowKind) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file (or of a JSON file that holds one list), checked.

    Args:
        path: Empty lines are skipped but counted, so that the numbers in errors are those of an editor.
        kind: `decoder`, `encoder-decoder` and `classification` rows have `input` and `output`; those for a decoder may
            all be `messages` instead. `encoder` and `reranker` rows have `query`, `pos`, `neg`.

    Raises:
        ExampleDataError: no such file, no rows, or bad lines; all of them, up to ten, by number.
    """
    if _holds_list(path):
        return _checked(f"{path}", "row", enumerate(_read_list(path), start=1), check_object, kind)
    return _checked(f"{path}", "line", read_lines(path), parse_row, kind)


def check_rows(rows: Sequence[Mapping[str, Any]], kind: RowKind, source: str) -> list[dict[str, Any]]:
    """Rows that stand in the recipe itself, checked like those of a file; `source` names them in errors."""
    return _checked(source, "row", enumerate(rows, start=1), check_object, kind)


def describe_examples(path: Path, rows: Sequence[Mapping[str, Any]]) -> ExampleSet:
    """The record of a file with these rows: its digest is of the rows, not of the file's white space."""
    return ExampleSet(path.absolute().as_uri(), digest_rows(rows), len(rows))


def digest_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """sha256 of rows in their order; equal for equal content."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def row_text(row: Mapping[str, Any]) -> str:
    """What makes a row the same example elsewhere: its input, query or question, case and white space folded.

    The question of a chat is the message before its answer. Used to refuse evaluation rows that also chose the weights.
    """
    text = row["messages"][-2]["content"] if "messages" in row else row.get("input", row.get("query", ""))
    return " ".join(str(text).casefold().split())


def _holds_list(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    _, first_line = next(read_lines(path), (1, ""))
    return first_line.lstrip().startswith("[")


def _read_list(path: Path) -> list[Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ExampleDataError(f"{path}: line {error.lineno}: this is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise ExampleDataError(f"{path}: this is no list of rows: it is nested too deeply") from error


def _checked(
    source: str, unit: str, numbered: Iterable[tuple[int, Any]], parse: Callable[[Any], dict[str, Any]], kind: RowKind
) -> list[dict[str, Any]]:
    check = _CHECKS[kind]
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, value in numbered:
        try:
            rows.append(parse(value))
            problem = check(rows[-1])
        except ValueError as error:
            problem = str(error)
        if problem:
            problems.append(f"{unit} {number}: {problem}")
    refuse_rows(source, problems)
    if not rows:
        raise ExampleDataError(f"{source}: there are no rows")
    n_chats = sum("messages" in row for row in rows)
    if 0 < n_chats < len(rows):
        raise ExampleDataError(
            f'{source}: {n_chats} of {len(rows)} rows are chats ("messages"), the others {{"input", "output"}}; the '
            "losses of the two do not compare: write all rows alike"
        )
    return rows


def _check_answer_or_chat(row: dict[str, Any]) -> str | None:
    return _check_chat(row["messages"]) if "messages" in row else _check_answer(row)


def _check_chat(messages: Any) -> str | None:
    shape = 'a chat is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
    if not isinstance(messages, list) or len(messages) < 2:
        return f"expected at least two messages; {shape}"
    for number, message in enumerate(messages, start=1):
        texts = [message.get("role"), message.get("content")] if isinstance(message, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            return f"message {number}: expected text in 'role' and 'content'; {shape}"
    if messages[-1]["role"] != "assistant":
        return f"the last message is the {messages[-1]['role']}'s; expected the assistant's, which is the answer"
    return None if messages[-1]["content"].strip() else "the last message is empty, so there is nothing to predict"


def _check_answer(row: dict[str, Any]) -> str | None:
    if "messages" in row:
        return 'expected {"input", "output"}, found chat messages, which are for the examples of decoders'
    for key in ("input", "output"):
        if not isinstance(row.get(key), str):
            return f'expected text in {key!r}, found {_found(row, key)}; a row is {{"input": "...", "output": "..."}}'
    return None if row["output"].strip() else "the output is empty, so there is nothing to predict"


def _check_pair(row: dict[str, Any]) -> str | None:
    shape = 'a row is {"query": "...", "pos": ["..."], "neg": ["..."]}'
    if "messages" in row:
        return f"found chat messages, which are for the examples of decoders; {shape}"
    if not isinstance(row.get("query"), str) or not row["query"].strip():
        return f"expected text in 'query', found {_found(row, 'query')}; {shape}"
    for key in ("pos", "neg"):
        texts = row.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return f"expected a list of texts in {key!r}, found {_found(row, key)}; {shape}"
    if not row.get("pos"):
        return f"expected at least one text in 'pos'; {shape}"
    return None if all(text.strip() for text in row["pos"]) else "a text in 'pos' is empty, so there is nothing to find"


def _check_ranking(row: dict[str, Any]) -> str | None:
    if problem := _check_pair(row):
        return problem
    if not row.get("neg"):
        return "expected at least one text in 'neg': a reranker's loss is how it ranks positives above the row's others"
    both = [text for text in row["pos"] if text in row["neg"]]
    return f"{both[0]!r} stands in 'pos' and in 'neg'" if both else None


def _found(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return f"no such key (keys: {', '.join(map(str, row)) or 'none'})"
    return "empty text" if row[key] == "" else type(row[key]).__name__


_CHECKS: dict[RowKind, Callable[[dict[str, Any]], str | None]] = {
    "decoder": _check_answer_or_chat,
    "encoder": _check_pair,
    "reranker": _check_ranking,
    "encoder-decoder": _check_answer,
    "classification": _check_answer,
}
