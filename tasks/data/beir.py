"""Retrieval data in the layout of BEIR: a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv.

Read where it is planned and where a worker computes on it. Source: https://github.com/beir-cellar/beir.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.data.lines import parse_row, read_lines, refuse_rows
from tasks.errors import ExampleDataError
from tasks.records import ExampleSet

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"

_HEADER = "query-id<TAB>corpus-id<TAB>score"


@dataclass(frozen=True, slots=True)
class BeirData:
    """What is searched, by what, and what should be found."""

    queries: dict[str, str]
    """Id to text, of the queries with at least one relevant document, in the order of the file."""
    documents: dict[str, str]
    """Id to title and text, in the order of the file; at least two."""
    relevance: dict[str, dict[str, int]]
    """Query id to the ids of its relevant documents with their grade, 1 or more."""


def read_beir(folder: Path) -> BeirData:
    """Read and check retrieval data.

    Documents without a judgement, or with a grade of 0 or less, are not relevant.

    Raises:
        ExampleDataError: a file is missing, a line is damaged, an id stands twice or is judged without being there, no
            query has a relevant document, or there is only one document. Up to ten bad lines of a file are listed.
    """
    if missing := [name for name in (CORPUS, QUERIES, QRELS) if not (folder / name).is_file()]:
        raise ExampleDataError(
            f"{folder}: no such file: {', '.join(missing)}; retrieval data is a folder with {CORPUS}, {QUERIES} and "
            f"{QRELS}"
        )
    documents = _read_texts(folder / CORPUS, _document_text)
    queries = _read_texts(folder / QUERIES, _query_text)
    grades = _read_judgements(folder / QRELS, queries, documents)
    relevance = {query: found for query in queries if (found := grades.get(query))}
    if not relevance:
        raise ExampleDataError(f"{folder / QRELS}: no query has a document with a score above 0; nothing can be found")
    if len(documents) < 2:
        raise ExampleDataError(f"{folder / CORPUS}: expected at least two documents, found one; it is always first")
    return BeirData({query: queries[query] for query in relevance}, documents, relevance)


def describe_beir(folder: Path, data: BeirData) -> ExampleSet:
    """The record of a folder with this data: its digest is of what is evaluated, not of white space."""
    return ExampleSet(folder.resolve().as_uri(), digest_beir(data), len(data.queries))


def digest_beir(data: BeirData) -> str:
    """sha256 of retrieval data; equal for equal content in equal order."""
    digest = hashlib.sha256()
    for part in (data.queries, data.documents, data.relevance):
        for key, value in part.items():
            digest.update(json.dumps([key, value], sort_keys=True).encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()


def _document_text(row: dict[str, Any]) -> str:
    return f"{_text(row, 'title') if 'title' in row else ''} {_text(row, 'text')}".strip()


def _query_text(row: dict[str, Any]) -> str:
    text = _text(row, "text")
    if not text.strip():
        raise ValueError("the query is empty")
    return text


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"expected text in {key!r}, found {type(value).__name__ if key in row else 'no such key'}")
    return value


def _read_texts(path: Path, text_of: Callable[[dict[str, Any]], str]) -> dict[str, str]:
    """Id to text of a JSON Lines file."""
    texts: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in read_lines(path):
        try:
            row = parse_row(line)
            key, text = _text(row, "_id"), text_of(row)
            if key in first_lines:
                raise ValueError(f"id {key!r} stands already in line {first_lines[key]}")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        else:
            first_lines[key], texts[key] = number, text
    refuse_rows(f"{path}", problems)
    if not texts:
        raise ExampleDataError(f"{path}: there are no rows")
    return texts


def _read_judgements(path: Path, queries: dict[str, str], documents: dict[str, str]) -> dict[str, dict[str, int]]:
    """Query id to document id to grade, of grades above 0."""
    grades: dict[str, dict[str, int]] = {}
    judged: set[tuple[str, str]] = set()
    problems: list[str] = []
    for index, (number, line) in enumerate(read_lines(path)):
        try:
            query, document, grade = _parse_judgement(line, is_first=index == 0)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if grade is None:
            continue
        wrong = _unknown_ids(query, document, queries, documents)
        if (query, document) in judged:
            wrong.append(f"query {query!r} and document {document!r} are judged twice")
        if wrong:
            problems.append(f"line {number}: {'; '.join(wrong)}")
        judged.add((query, document))
        if grade > 0:
            grades.setdefault(query, {})[document] = grade
    refuse_rows(f"{path}", problems)
    if not judged:
        raise ExampleDataError(f"{path}: there are no judgements under the header")
    return grades


def _parse_judgement(line: str, is_first: bool) -> tuple[str, str, int | None]:
    """Query id, document id and grade; None as grade of the header."""
    columns = line.split("\t")
    if len(columns) != 3:
        raise ValueError(f"expected 3 columns with tabs between them ({_HEADER}), found {len(columns)}")
    query, document, grade = (column.strip() for column in columns)
    is_number = grade.removeprefix("-").isdecimal()
    if is_first and is_number:
        raise ValueError(f"this looks like a judgement; the first line must be the header {_HEADER}")
    if not is_first and not is_number:
        raise ValueError(f"expected a whole number as score, found {grade!r}")
    return query, document, int(grade) if is_number else None


def _unknown_ids(query: str, document: str, queries: dict[str, str], documents: dict[str, str]) -> list[str]:
    problems: list[str] = []
    if query not in queries:
        problems.append(f"query {query!r} is not in {QUERIES}")
    if document not in documents:
        problems.append(f"document {document!r} is not in {CORPUS}")
    return problems
