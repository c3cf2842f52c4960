import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tasks.data.beir import describe_beir, digest_beir, read_beir
from tasks.errors import ExampleDataError

HEADER = "query-id\tcorpus-id\tscore"
CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "They purr."},
    {"_id": "d2", "title": "", "text": "Dogs bark."},
    {"_id": "d3", "text": "Fish do not."},
]
QUERIES = [{"_id": "q1", "text": "who purrs?"}, {"_id": "q2", "text": "who barks?"}, {"_id": "q3", "text": "unjudged"}]
QRELS = [HEADER, "q1\td1\t2", "q1\td3\t0", "q2\td2\t1"]


def lines_of(rows: Sequence[Mapping[str, object] | str]) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


def write_beir(
    folder: Path,
    corpus: Sequence[Mapping[str, object] | str] = CORPUS,
    queries: Sequence[Mapping[str, object] | str] = QUERIES,
    qrels: Sequence[str] = QRELS,
) -> Path:
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text(lines_of(corpus))
    (folder / "queries.jsonl").write_text(lines_of(queries))
    (folder / "qrels/test.tsv").write_text(lines_of(qrels))
    return folder


def test_title_and_text_make_the_document_and_only_judged_queries_ask(tmp_path: Path):
    data = read_beir(write_beir(tmp_path))
    assert data.documents == {"d1": "Cats They purr.", "d2": "Dogs bark.", "d3": "Fish do not."}
    assert data.queries == {"q1": "who purrs?", "q2": "who barks?"}
    assert data.relevance == {"q1": {"d1": 2}, "q2": {"d2": 1}}


def test_a_query_without_a_relevant_document_does_not_ask(tmp_path: Path):
    data = read_beir(write_beir(tmp_path, qrels=[HEADER, "q1\td1\t1", "q2\td2\t0", "q3\td1\t-1"]))
    assert list(data.queries) == ["q1"]


def test_lines_end_only_where_an_editor_ends_them(tmp_path: Path):
    write_beir(tmp_path, queries=['{"_id": "q1", "text": "a\u2028b"}', "", {"_id": "q2", "text": "c"}])
    qrels = tmp_path / "qrels/test.tsv"
    qrels.write_bytes(qrels.read_bytes().replace(b"\n", b"\r\n"))
    assert read_beir(tmp_path).queries == {"q1": "a\u2028b", "q2": "c"}


def test_the_digest_is_of_content_not_of_white_space_or_unjudged_queries(tmp_path: Path):
    before = describe_beir(tmp_path, read_beir(write_beir(tmp_path)))
    assert (before.n, before.uri, len(before.sha256)) == (2, tmp_path.as_uri(), 64)
    reformatted = [json.dumps(row, separators=(" , ", " : ")) for row in CORPUS]
    write_beir(tmp_path, corpus=reformatted, queries=QUERIES[:2], qrels=[*QRELS[:2], *QRELS[3:]])
    assert describe_beir(tmp_path, read_beir(tmp_path)) == before


@pytest.mark.parametrize(
    "change",
    [
        {"corpus": [*CORPUS[:2], {"_id": "d3", "text": "Fish do."}]},
        {"corpus": [*CORPUS, {"_id": "d4", "text": "More."}]},
        {"queries": [{"_id": "q1", "text": "who purred?"}, QUERIES[1]]},
        {"qrels": [HEADER, "q1\td1\t1", "q2\td2\t1"]},
        {"queries": [QUERIES[1], QUERIES[0]]},
    ],
)
def test_whatever_changes_a_value_changes_the_digest(tmp_path: Path, change: dict[str, list[str]]):
    qrels = [HEADER, "q1\td1\t2", "q2\td2\t1", "q1\td3\t0"]
    before = read_beir(write_beir(tmp_path, queries=QUERIES[:2], qrels=qrels))
    after = read_beir(write_beir(tmp_path, **({"queries": QUERIES[:2], "qrels": qrels} | change)))
    assert digest_beir(before) != digest_beir(after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": [*CORPUS, {"_id": "d2", "text": "again"}]}, r"corpus.jsonl: .*\n  line 4: id 'd2' .* in line 2"),
        ({"queries": [QUERIES[0], QUERIES[0]]}, r"queries.jsonl: .*\n  line 2: id 'q1' stands already in line 1"),
        ({"corpus": ["{oops"]}, r"corpus.jsonl: 1 row .*\n  line 1: this is no JSON"),
        ({"corpus": ["[1]"]}, "line 1: expected an object, found list"),
        ({"corpus": [{"_id": 7, "text": ""}]}, "line 1: expected text in '_id', found int"),
        ({"corpus": [{"_id": "d1", "title": "Cats"}]}, "line 1: expected text in 'text', found no such key"),
        ({"corpus": [{"_id": "d1", "title": None, "text": ""}]}, "expected text in 'title', found NoneType"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "queries.jsonl: .*\n  line 1: the query is empty"),
        ({"corpus": [""]}, "corpus.jsonl: there are no rows"),
        ({"corpus": CORPUS[:1], "qrels": [HEADER, "q1\td1\t1"]}, "at least two documents, found one"),
        ({"qrels": [HEADER]}, "test.tsv: there are no judgements under the header"),
        ({"qrels": [HEADER, "q1\td1\t0"]}, "test.tsv: no query has a document with a score above 0"),
        ({"qrels": [HEADER, "q9\td1\t1", "q1\td8\t1"]}, "line 2: query 'q9' is not in .*\n  line 3: document 'd8' is"),
        ({"qrels": [HEADER, "q1\td1\t1", "q1\td1\t1"]}, "line 3: query 'q1' and document 'd1' are judged twice"),
        ({"qrels": ["q1\td1\t1"]}, "line 1: this looks like a judgement; the first line must be the header"),
        ({"qrels": [HEADER, "q1\td1\thigh"]}, "line 2: expected a whole number as score, found 'high'"),
        ({"qrels": [HEADER, "q1 d1 1"]}, "line 2: expected 3 columns .* found 1"),
    ],
)
def test_damaged_data_is_refused_with_file_and_line(tmp_path: Path, change: dict[str, list[str]], message: str):
    with pytest.raises(ExampleDataError, match=message):
        read_beir(write_beir(tmp_path, **change))


def test_only_ten_bad_lines_are_listed(tmp_path: Path):
    with pytest.raises(ExampleDataError, match=r"13 rows cannot be used:(.|\n)*line 11(.|\n)*and 3 more"):
        read_beir(write_beir(tmp_path, qrels=[HEADER, *["q9\td9\t1"] * 13, "q1\td1\t1"]))


def test_a_missing_file_says_what_the_folder_holds(tmp_path: Path):
    write_beir(tmp_path)
    (tmp_path / "qrels/test.tsv").unlink()
    with pytest.raises(ExampleDataError, match=r"no such file: qrels/test\.tsv; retrieval data is a folder with"):
        read_beir(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    write_beir(tmp_path)
    (tmp_path / "corpus.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ExampleDataError, match=r"corpus.jsonl: cannot be read as UTF-8 text"):
        read_beir(tmp_path)
