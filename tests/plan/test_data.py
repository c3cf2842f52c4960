import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tasks.cache import ResultCache
from tasks.data.examples import digest_rows, read_rows
from tasks.plan.data import length_problems, load_tokenizer, read_data
from tasks.references import local_path

ROWS = [{"input": "is it late", "output": "yes"}, {"input": "is it", "output": "no"}]
PAIRS = [{"query": "Late  train?", "pos": ["it is late"], "neg": []}, {"query": "early", "pos": ["no"], "neg": []}]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_beir(folder: Path, query: str) -> str:
    (folder / "qrels").mkdir(parents=True)
    write_rows(folder / "corpus.jsonl", [{"_id": "d1", "text": "a"}, {"_id": "d2", "text": "b"}])
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": query}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return str(folder)


def test_rows_in_the_recipe_become_a_file_with_the_digest_of_a_file_of_them(
    make_recipe: Any, cache: ResultCache, tmp_path: Path
):
    inline = read_data(make_recipe(examples=ROWS, weigh={"strategy": "loss"}), cache)
    path = write_rows(tmp_path / "examples.jsonl", ROWS)
    from_file = read_data(make_recipe(examples=path, weigh={"strategy": "loss"}), cache)
    assert inline.findings.problems == from_file.findings.problems == []
    assert inline.examples is not None and from_file.examples is not None
    assert inline.examples.sha256 == from_file.examples.sha256 == digest_rows(ROWS)
    assert (inline.examples.n, from_file.examples.uri) == (2, (tmp_path / "examples.jsonl").as_uri())
    assert read_rows(local_path(inline.examples.uri), "decoder") == ROWS


def test_examples_that_no_strategy_asks_for_are_not_read(make_recipe: Any, cache: ResultCache):
    data = read_data(make_recipe(examples="/nowhere.jsonl"), cache)
    assert (data.examples, data.findings.problems) == (None, [])


def test_a_bad_line_is_named_with_its_number(make_recipe: Any, cache: ResultCache, tmp_path: Path):
    path = write_rows(tmp_path / "examples.jsonl", [*ROWS, {"input": "x"}])
    data = read_data(make_recipe(examples=path, weigh={"strategy": "loss"}), cache)
    (problem,) = data.findings.problems
    assert problem.startswith("examples: ") and "line 3: expected text in 'output'" in problem


def test_missing_data_is_named_with_its_task(make_recipe: Any, cache: ResultCache):
    recipe = make_recipe(evaluate=[{"name": "mmlu", "kind": "classification", "data": "/nowhere.jsonl"}])
    assert read_data(recipe, cache).findings.problems == ["evaluation task 'mmlu': /nowhere.jsonl: no such file"]


def test_data_that_is_no_path_is_refused(make_recipe: Any, cache: ResultCache):
    recipe = make_recipe(evaluate=[{"name": "mmlu", "kind": "classification", "data": "org/mmlu"}])
    assert read_data(recipe, cache).findings.problems == [
        "evaluation task 'mmlu': org/mmlu is no path; this version reads data from paths only: copy it here first"
    ]


def test_pinned_content_is_compared_and_both_are_named(make_recipe: Any, cache: ResultCache, tmp_path: Path):
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    sections: dict[str, Any] = {"examples": path, "weigh": {"strategy": "loss"}}
    assert not read_data(make_recipe(**sections, examples_sha256=digest_rows(ROWS)), cache).findings.problems
    task = {"name": "mmlu", "kind": "classification", "data": path, "sha256": "1234"}
    problems = read_data(
        make_recipe(**sections, examples_sha256="sha256:ab12", evaluate=[task]), cache
    ).findings.problems
    assert problems[0].startswith(
        f"examples: the recipe pins content sha256:ab12, found {digest_rows(ROWS)} in file://"
    )
    assert problems[1].startswith("evaluation task 'mmlu': the recipe pins content 1234, found ")


def test_example_rows_that_are_also_evaluated_are_counted_and_numbered(
    make_recipe: Any, cache: ResultCache, tmp_path: Path
):
    held_out = [{"input": "new", "output": "no"}, {"input": " IS it\n late ", "output": "no"}]
    recipe = make_recipe(
        examples=[{"input": "new one", "output": "yes"}, *ROWS],
        weigh={"strategy": "loss"},
        evaluate=[{"name": "news", "kind": "classification", "data": write_rows(tmp_path / "test.jsonl", held_out)}],
    )
    assert read_data(recipe, cache).findings.problems == [
        "examples: 1 of 3 rows are also in evaluation task 'news' (example rows 2); what chooses the weights must not "
        "judge the merge: take them out of one of the two"
    ]


def test_queries_are_kept_apart_too(make_recipe: Any, cache: ResultCache, tmp_path: Path):
    recipe = make_recipe(
        model_type="encoder",
        examples=PAIRS,
        weigh={"strategy": "loss"},
        evaluate=[
            {"name": "trains", "kind": "retrieval", "data": write_beir(tmp_path / "trains", "late TRAIN?")},
            {"name": "other", "kind": "retrieval", "data": write_beir(tmp_path / "other", "late bus?")},
        ],
    )
    data = read_data(recipe, cache)
    assert [problem.split(" (")[0] for problem in data.findings.problems] == [
        "examples: 1 of 2 rows are also in evaluation task 'trains'"
    ]
    assert {name: found.n for name, found in data.evaluation.items()} == {"trains": 1, "other": 1}
    assert data.answers == {}


def test_outputs_of_an_encoder_decoder_are_measured_apart_from_their_inputs(family: dict[str, Path]):
    tokenizer = load_tokenizer(family["base"] / "tokenizer.json")
    assert tokenizer is not None
    rows = [{"input": "is it late is it late", "output": "yes no"}, {"input": "is", "output": "yes no maybe"}]
    (problem,) = length_problems(rows, "examples", tokenizer, 2, "encoder-decoder")
    assert problem.startswith("examples: 1 of 2 outputs cannot be predicted:\n  row 2: the output has 3 tokens")


def test_what_no_default_loss_of_the_model_type_measures_is_not_measured(make_recipe: Any, cache: ResultCache):
    weigh = {"strategy": "loss"}
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    found = read_data(make_recipe(examples=chats, weigh=weigh), cache)
    assert (found.are_chats, found.answers) == (True, {})
    found = read_data(make_recipe(examples=ROWS, weigh=weigh, score={"loss": "lm_cocktail"}), cache)
    assert (found.are_chats, found.answers) == (False, {})
    found = read_data(make_recipe(model_type="encoder-decoder", examples=ROWS, weigh=weigh), cache)
    assert found.answers == {"examples": ROWS}


def test_a_tokenizer_that_cannot_be_read_is_none(tmp_path: Path, family: dict[str, Path]):
    assert load_tokenizer(tmp_path / "tokenizer.json") is None
    assert isinstance(load_tokenizer(family["base"] / "tokenizer.json"), Tokenizer)
