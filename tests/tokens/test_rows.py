"""Rows of tokens, known from headers and tokenizers."""

from pathlib import Path

import pytest

from tasks.errors import CheckpointError
from tasks.tensors import TensorView
from tasks.tokens.rows import find_vocabulary_tensors


def views(**shapes: tuple[int, ...]) -> dict[str, TensorView]:
    names = {name: name.replace("__", ".") for name in shapes}
    return {names[name]: TensorView(names[name], "F32", shape, Path("b"), 0) for name, shape in shapes.items()}


def test_tensors_with_a_row_for_every_token_are_known_by_module_and_size():
    base = views(
        model__embed_tokens__weight=(9, 4), lm_head__weight=(9, 4), cls__predictions__bias=(9,),
        encoder__output__weight=(4, 4),
    )  # fmt: skip
    assert find_vocabulary_tensors(base, {"text_config": {"vocab_size": 9}, "hidden_size": 4}) == [
        "model.embed_tokens.weight", "lm_head.weight", "cls.predictions.bias",
    ]  # fmt: skip


def test_tensors_that_may_belong_to_tokens_are_refused_unless_the_size_means_something_else_too():
    base = views(shared__weight=(9, 4), final_logits_bias=(1, 9))
    with pytest.raises(CheckpointError, match=r"whether they belong to tokens: 'final_logits_bias' \[1, 9\]"):
        find_vocabulary_tensors(base, {"vocab_size": 9})
    assert find_vocabulary_tensors(base, {"vocab_size": 9, "n_positions": 9}) == ["shared.weight"]
    with pytest.raises(CheckpointError, match="no tensor of the base is known to have a row for each of the 8 tokens"):
        find_vocabulary_tensors(base, {"vocab_size": 8})
