import json
from pathlib import Path
from typing import Any

import pytest

from tasks.cache import ResultCache
from tasks.errors import CheckpointError
from tasks.plan.findings import Findings
from tasks.plan.resolve import resolve_checkpoint
from tasks.plan.vocabulary import compare_tokenizers
from tasks.tokens.vocabularies import read_vocabulary

WORDS = ("[UNK]", "[EOS]", "yes", "no")


@pytest.fixture
def pair(write_model: Any) -> tuple[Path, Path]:
    return write_model("base", tokens=WORDS), write_model("law", tokens=WORDS)


def compare(pair: tuple[Path, Path], cache: ResultCache) -> Findings:
    base, candidate = (resolve_checkpoint(folder.name, str(folder), None, cache) for folder in pair)
    return compare_tokenizers(base, candidate, "candidate 'law'")


def edit(folder: Path, name: str = "tokenizer.json", **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=3))


def test_tokens_that_differ_are_counted_and_named(write_model: Any, cache: ResultCache):
    base = write_model("base", tokens=WORDS)
    candidate = write_model("law", tokens=("[UNK]", "[EOS]", "no", "yes", "court"))
    assert compare((base, candidate), cache).problems == [
        "candidate 'law': 3 tokens of its vocabulary (5 tokens) and the base's (4) do not agree: 'yes' (3 here, 2 in "
        "the base), 'no' (2 here, 3 in the base), 'court' (only here); both must number tokens alike; to merge by "
        "token all the same, write `merge: {embeddings: base}` or `union`"
    ]


def test_only_the_first_of_many_tokens_are_named(write_model: Any, cache: ResultCache):
    words = tuple(f"word{number}" for number in range(20))
    base, candidate = write_model("base", tokens=(*WORDS, *words)), write_model("law", tokens=WORDS)
    (problem,) = compare((base, candidate), cache).problems
    assert "20 tokens" in problem and "'word9' (only in the base) and 10 more" in problem


def test_truncation_padding_and_layout_do_not_matter(pair: tuple[Path, Path], cache: ResultCache):
    edit(pair[1], truncation={"max_length": 8}, padding={"strategy": "BatchLongest"})
    assert compare(pair, cache) == Findings()


def test_added_tokens_belong_to_the_vocabulary(pair: tuple[Path, Path], cache: ResultCache):
    edit(pair[1], added_tokens=[{"id": 4, "content": "<|user|>", "special": True}])
    assert "1 tokens of its vocabulary (5 tokens)" in compare(pair, cache).problems[0]


def test_other_merges_split_text_in_another_way(pair: tuple[Path, Path], cache: ResultCache):
    vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3}
    edit(pair[0], model={"type": "BPE", "vocab": vocabulary, "merges": ["a b", "b a"]})
    edit(pair[1], model={"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"], ["b", "a"]]})
    assert compare(pair, cache).problems == []  # Two spellings of one list.
    edit(pair[1], model={"type": "BPE", "vocab": vocabulary, "merges": ["a b"]})
    assert "BPE merges differ from the base's from number 1 on" in compare(pair, cache).problems[0]
    edit(pair[1], model={"type": "BPE", "vocab": vocabulary, "merges": ["b a", "a b"]})
    assert "BPE merges differ from the base's from number 0 on" in compare(pair, cache).problems[0]


def test_unigram_tokens_are_numbered_by_their_place(pair: tuple[Path, Path]):
    edit(pair[0], model={"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]})
    assert read_vocabulary(pair[0] / "tokenizer.json").ids == {"a": 0, "b": 1}


def test_another_normalizer_is_a_warning(pair: tuple[Path, Path], cache: ResultCache):
    edit(pair[1], normalizer={"type": "Lowercase"})
    found = compare(pair, cache)
    assert found.problems == []
    assert found.warnings == [
        "candidate 'law': tokenizer.json has another normalizer than the base's; the merged model takes the base's"
    ]


def test_special_tokens_must_agree_where_both_say_them(pair: tuple[Path, Path], cache: ResultCache):
    edit(pair[0], "tokenizer_config.json", cls_token="[CLS]", bos_token="<s>")
    edit(pair[1], "tokenizer_config.json", unk_token={"content": "<unk>", "special": True}, cls_token=None)
    assert compare(pair, cache).problems == [
        "candidate 'law': unk_token is '<unk>', the base's is '[UNK]'; both must mark text alike"
    ]


def test_another_end_of_text_is_a_warning(pair: tuple[Path, Path], cache: ResultCache):
    edit(pair[1], "tokenizer_config.json", eos_token="<|im_end|>")
    found = compare(pair, cache)
    assert found.problems == []
    assert "eos_token is '<|im_end|>', the base's is '[EOS]'; the merged model takes" in found.warnings[0]


def test_a_candidate_without_a_tokenizer_is_named(pair: tuple[Path, Path], cache: ResultCache):
    (pair[1] / "tokenizer.json").unlink()
    assert compare(pair, cache).problems == [
        "candidate 'law': it lacks the base's tokenizer (tokenizer.json); copy the tokenizer's files in"
    ]


def test_vocabularies_without_tokenizer_json_are_compared_by_content(pair: tuple[Path, Path], cache: ResultCache):
    for folder in pair:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("yes\nno\n")
    assert compare(pair, cache) == Findings()
    (pair[1] / "vocab.txt").write_text("no\nyes\n")
    assert compare(pair, cache).problems == [
        "candidate 'law': vocab.txt differs from the base's; both must number tokens alike"
    ]


def test_what_cannot_be_compared_is_a_warning(pair: tuple[Path, Path], cache: ResultCache):
    (pair[1] / "tokenizer.json").rename(pair[1] / "elsewhere.json")
    (pair[0] / "tokenizer.json").rename(pair[0] / "vocab.txt")
    (pair[1] / "elsewhere.json").rename(pair[1] / "tokenizer.json")
    assert "other files than the base's" in compare(pair, cache).warnings[0]
    (pair[0] / "vocab.txt").unlink()
    assert "the base has no tokenizer" in compare(pair, cache).warnings[0]


def test_a_damaged_tokenizer_is_named(pair: tuple[Path, Path], cache: ResultCache):
    (pair[1] / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"law/tokenizer\.json: this is no JSON"):
        compare(pair, cache)
