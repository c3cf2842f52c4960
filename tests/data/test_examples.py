"""Rows are read whole or refused with the number of every bad line."""

import json
from pathlib import Path

import pytest

from tasks.data.examples import check_rows, describe_examples, digest_rows, read_rows, row_text
from tasks.errors import ExampleDataError
from tasks.records import ExampleSet


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_come_back_in_order_and_empty_lines_are_skipped(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", '{"input": "a", "output": "b"}', "", '{"input": "c", "output": "d"}')
    assert read_rows(path, "decoder") == [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}]


def test_a_line_separator_inside_a_text_does_not_break_the_line(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", '{"input": "one\u2028two", "output": "b"}')
    assert read_rows(path, "classification")[0]["input"] == "one\u2028two"


def test_a_json_list_is_read_too(tmp_path: Path):
    rows = [{"query": "q", "pos": ["p"]}]
    path = write(tmp_path / "rows.json", json.dumps(rows))
    assert read_rows(path, "encoder") == rows
    path = write(tmp_path / "rows.json", json.dumps([*rows, "text", {"query": "q"}]))
    with pytest.raises(ExampleDataError, match=r"2 rows cannot be used:\n  row 2: expected an object, .*\n  row 3: "):
        read_rows(path, "encoder")
    with pytest.raises(ExampleDataError, match="this is no list of rows: it is nested too deeply"):
        read_rows(write(tmp_path / "rows.json", "[" * 100_000), "encoder")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input": "a"', r"line 2: this is no JSON: .* \(column"),
        ('["input"]', "line 2: expected an object, found list"),
        ('{"input": "a"}', r"line 2: expected text in 'output', found no such key \(keys: input\)"),
        ('{"input": "a", "output": 3}', "line 2: expected text in 'output', found int"),
        ('{"input": "a", "output": " "}', "line 2: the output is empty"),
        ('{"messages": []}', "line 2: expected at least two messages"),
        ('{"messages": [{"role": "user", "content": "a"}, 3]}', "line 2: message 2: expected text in 'role' and"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', "is the user's"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}',
            "line 2: the last message is empty",
        ),
    ],
)
def test_a_bad_answer_row_is_named_by_its_line(tmp_path: Path, line: str, message: str):
    path = write(tmp_path / "rows.jsonl", '{"input": "a", "output": "b"}', line)
    with pytest.raises(ExampleDataError, match=message):
        read_rows(path, "decoder")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"pos": ["p"]}, "row 1: expected text in 'query'"),
        ({"query": "", "pos": ["p"]}, "row 1: expected text in 'query', found empty text"),
        ({"query": "q", "pos": "p"}, "row 1: expected a list of texts in 'pos', found str"),
        ({"query": "q", "pos": ["p", " "]}, "row 1: a text in 'pos' is empty, so there is nothing to find"),
        ({"query": "q", "pos": ["p"], "neg": [1]}, "row 1: expected a list of texts in 'neg'"),
        ({"query": "q", "pos": []}, "row 1: expected at least one text in 'pos'"),
        ({"query": "q", "pos": ["p"], "messages": []}, "row 1: found chat messages, which are for the examples of"),
        ({"query": "q\ud800", "pos": ["p"]}, r"row 1: \\ud800 is half of a character; write both halves"),
    ],
)
def test_a_bad_pair_in_the_recipe_is_named_by_its_row(row: dict[str, object], message: str):
    with pytest.raises(ExampleDataError, match=f"examples: 1 row cannot be used:\n  {message}"):
        check_rows([row], "encoder", "examples")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "pos": ["p"], "neg": []}, "row 1: expected at least one text in 'neg'"),
        ({"query": "q", "pos": ["p", "r"], "neg": ["n", "r"]}, "row 1: 'r' stands in 'pos' and in 'neg'"),
        ({"query": "q", "pos": []}, "row 1: expected at least one text in 'pos'"),
    ],
)
def test_a_reranker_needs_negatives_that_are_no_positives(row: dict[str, object], message: str):
    with pytest.raises(ExampleDataError, match=message):
        check_rows([row], "reranker", "examples")


CHAT = {"messages": [{"role": "user", "content": " Who  is it?"}, {"role": "assistant", "content": "b"}]}


def test_chats_are_for_decoders_only():
    assert check_rows([CHAT], "decoder", "examples") == [CHAT]
    for kind in ("encoder-decoder", "classification"):
        with pytest.raises(ExampleDataError, match="found chat messages, which are for the examples of decoders"):
            check_rows([CHAT], kind, "examples")


def test_chats_and_other_rows_are_not_mixed():
    with pytest.raises(
        ExampleDataError, match=r'examples: 1 of 2 rows are chats \("messages"\), .*write all rows alike'
    ):
        check_rows([CHAT, {"input": "a", "output": "b"}], "decoder", "examples")


def test_a_chat_is_the_same_example_as_its_question():
    assert row_text(CHAT) == row_text({"input": "who is it?"})


def test_many_bad_lines_are_listed_up_to_ten_and_counted(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *["{}"] * 12)
    with pytest.raises(ExampleDataError, match="12 rows cannot be used") as caught:
        read_rows(path, "decoder")
    assert str(caught.value).count("\n  line ") == 10
    assert str(caught.value).endswith("and 2 more")


def test_a_missing_an_empty_a_broken_and_an_unreadable_file_are_errors(tmp_path: Path):
    with pytest.raises(ExampleDataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl", "decoder")
    with pytest.raises(ExampleDataError, match="there are no rows"):
        read_rows(write(tmp_path / "empty.jsonl", ""), "decoder")
    with pytest.raises(ExampleDataError, match="line 1: this is no JSON"):
        read_rows(write(tmp_path / "rows.json", "[{]"), "decoder")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ExampleDataError, match="cannot be read as UTF-8"):
        read_rows(tmp_path / "latin.jsonl", "decoder")


def test_the_digest_is_of_the_rows_and_not_of_the_white_space(tmp_path: Path):
    def describe(name: str, *lines: str) -> ExampleSet:
        path = write(tmp_path / name, *lines)
        return describe_examples(path, read_rows(path, "decoder"))

    compact = describe("a.jsonl", '{"input":"a","output":"b"}')
    spaced = describe("b.jsonl", "", '{ "output": "b",  "input": "a" }')
    other = describe("c.jsonl", '{"input":"a","output":"c"}')
    assert compact.sha256 == spaced.sha256 != other.sha256
    assert (compact.n, compact.uri) == (1, (tmp_path / "a.jsonl").as_uri())
    assert digest_rows([]) != digest_rows([{}])


def test_the_same_question_in_other_case_and_spacing_is_the_same_text():
    assert row_text({"input": "Who  is\nit?"}) == row_text({"query": "who is it?"})
