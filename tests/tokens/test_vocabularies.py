import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_decoder
from transformers import AutoConfig, AutoTokenizer

from tasks.checkpoint import read_json_object
from tasks.errors import CheckpointMismatchError
from tasks.tokens.vocabularies import Vocabulary, extend_tokenizer, read_vocabulary, unite, vocabulary_size


def entry(token: str, number: int, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": token, **plain, **flags}


def vocabulary(*tokens: str, added: tuple[str, ...] = ()) -> Vocabulary:
    ids = {token: number for number, token in enumerate((*tokens, *added))}
    return Vocabulary(ids, (), {}, {token: entry(token, ids[token]) for token in added})


def test_added_tokens_are_read_with_their_settings(tmp_path: Path):
    content = {"model": {"vocab": {"a": 0}}, "added_tokens": [entry("<x>", 1, special=True)]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    read = read_vocabulary(tmp_path / "tokenizer.json")
    assert read.ids == {"a": 0, "<x>": 1}
    assert read.added["<x>"]["special"]


def test_new_tokens_follow_the_bases_in_the_candidates_order():
    base = vocabulary("a", "b", added=("<s>",))
    law = vocabulary("a", "b", added=("<law>", "<s>", "<both>"))
    chat = vocabulary("b", "a", added=("<both>", "<chat>"))
    output = unite(base, {"law": law, "chat": chat})
    assert output.ids == {"a": 0, "b": 1, "<s>": 2, "<law>": 3, "<both>": 4, "<chat>": 5}
    assert [(new["content"], new["id"]) for new in output.new] == [("<law>", 3), ("<both>", 4), ("<chat>", 5)]
    assert unite(base, {"same": base}) == unite(base, {}) and not unite(base, {}).new


def test_tokens_that_only_another_tokenizer_model_makes_are_refused():
    base = vocabulary("a")
    with pytest.raises(
        CheckpointMismatchError, match=r"use embeddings: base.* law: 2 tokens, 'b', 'c'; chat: 1 tokens"
    ):
        unite(base, {"law": vocabulary("a", "b", "c"), "chat": vocabulary("d", added=("<x>",))})


def test_an_extended_tokenizer_loads_and_reads_a_new_token_as_one(tmp_path: Path):
    folder = save_decoder(tmp_path / "base", 1, template="$A")
    before = AutoTokenizer.from_pretrained(folder)
    size = len(before)
    changed = extend_tokenizer(folder, [entry("<law>", size, special=True), entry("court", size + 1)], size + 2)
    assert changed.keys() == {"config.json", "tokenizer.json"}
    for path, content in changed.items():
        (folder / path).write_bytes(content)
    after = AutoTokenizer.from_pretrained(folder)
    assert after.encode("<law> acourt") == [size, before.encode(" a")[0], size + 1]
    assert after.decode([size], skip_special_tokens=True) == ""
    assert before.encode("yes no") == after.encode("yes no")
    assert AutoConfig.from_pretrained(folder).vocab_size == size + 2 == len(after)


def test_files_of_older_versions_are_extended_alike(tmp_path: Path):
    files = {
        "config.json": {"text_config": {"vocab_size": 4, "x": 4}, "vision_config": {"vocab_size": 9}},
        "tokenizer.json": {"added_tokens": None},
        "tokenizer_config.json": {"added_tokens_decoder": {"0": {"content": "<s>"}}, "x": 1},
        "added_tokens.json": {"<s>": 0},
    }
    for path, content in files.items():
        (tmp_path / path).write_text(json.dumps(content))
    changed = {path: json.loads(content) for path, content in extend_tokenizer(tmp_path, [entry("<x>", 3)], 6).items()}
    assert changed["config.json"] == {"text_config": {"vocab_size": 6, "x": 4}, "vision_config": {"vocab_size": 9}}
    assert changed["tokenizer.json"]["added_tokens"] == [entry("<x>", 3)]
    assert changed["tokenizer_config.json"]["added_tokens_decoder"].keys() == {"0", "3"}
    assert "id" not in changed["tokenizer_config.json"]["added_tokens_decoder"]["3"]
    assert changed["added_tokens.json"] == {"<s>": 0, "<x>": 3}


def test_nothing_changes_where_no_token_is_new(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"vocab_size": 4}')
    assert extend_tokenizer(tmp_path, [], 4) == {}
    assert vocabulary_size(read_json_object(tmp_path / "config.json")) == 4
    assert vocabulary_size({"vocab_size": None}) is None
