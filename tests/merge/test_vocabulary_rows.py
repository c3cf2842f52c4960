"""Rows looked up by token; expected numbers by hand."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from tasks.checkpoint import read_tensor_views
from tasks.errors import CheckpointMismatchError
from tasks.merge.sources import FileSource, TensorSource, describe, extra_elements, reading_anywhere
from tasks.merge.vocabulary import Tokenized, map_by_token
from tasks.tokens.vocabularies import Vocabulary

MakeModel = Callable[..., Tokenized]


def vocabulary(tokens: Sequence[str], n_added: int = 0) -> Vocabulary:
    ids = {token: number for number, token in enumerate(tokens)}
    added = {token: {"id": ids[token], "content": token} for token in tokens[len(tokens) - n_added :]}
    return Vocabulary(ids, (), {}, added)


@pytest.fixture
def make_model(make_checkpoint) -> MakeModel:
    """A model whose embeddings have rows (x, x + 0.5) for the numbers given, and a head with a bias."""

    def make(
        name: str, tokens: Sequence[str], rows: Sequence[float], n_added: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tokenized:
        column = torch.tensor(rows, dtype=dtype)
        tensors = {
            "embed_tokens.weight": torch.stack([column, column + 0.5], 1),
            "lm_head.bias": -column,
            "norm.weight": torch.full((3,), column[0].item()),
        }
        views = read_tensor_views(make_checkpoint(name, tensors).folder)
        return Tokenized(FileSource(name, views), vocabulary(tokens, n_added))

    return make


TENSORS = ("embed_tokens.weight", "lm_head.bias")


def read(source: TensorSource, name: str = "lm_head.bias", step: int = 10**9) -> Tensor:
    view = describe(source, name)
    buffer = memoryview(bytearray(8 * (min(step, view.n_elements) + extra_elements(source, name))))
    with reading_anywhere(source, name) as read_block:
        starts = range(0, view.n_elements, step)
        blocks = [read_block(start, min(step, view.n_elements - start), buffer).tensor().clone() for start in starts]
    return torch.cat(blocks).reshape(view.shape)


def test_rows_follow_the_tokens_of_the_base_and_lacking_ones_are_the_bases(make_model: MakeModel):
    base = make_model("base", "abcd", [1, 2, 3, 4, 9])  # the last row is padding
    law = make_model("law", "daxb", [40, 10, 70, 20])
    mapped = map_by_token("base", base, [law], TENSORS)
    (candidate,) = mapped.candidates
    assert read(mapped.base).tolist() == [-1, -2, -3, -4, -9]
    assert read(candidate).tolist() == [-10, -20, -3, -40, -9]
    assert read(candidate, "embed_tokens.weight").tolist() == [[10, 10.5], [20, 20.5], [3, 3.5], [40, 40.5], [9, 9.5]]
    assert read(candidate, "norm.weight").tolist() == [40, 40, 40]
    assert (mapped.tokens.n_rows, mapped.tokens.vocabulary.new) == (5, ())
    assert mapped.tokens.notes == (
        "law: it lacks 1 of the base's tokens, which count as unchanged: 'c'",
        "law: 1 of its tokens are left out: 'x'",
    )


def test_a_union_fills_padding_and_then_grows_and_who_lacks_a_token_has_the_mean(make_model: MakeModel):
    base = make_model("base", "ab", [1, 2, 9])
    law = make_model("law", "baxy", [20, 10, 30, 50], n_added=2)
    chat = make_model("chat", "abyz", [11, 21, 70, 90], n_added=2)
    mapped = map_by_token("union", base, [law, chat], TENSORS)
    assert [(token["content"], token["id"]) for token in mapped.tokens.vocabulary.new] == [("x", 2), ("y", 3), ("z", 4)]
    assert mapped.tokens.n_rows == 5
    assert read(mapped.base).tolist() == [-1, -2, -30, -60, -90]
    assert read(mapped.candidates[0]).tolist() == [-10, -20, -30, -50, -90]
    assert read(mapped.candidates[1]).tolist() == [-11, -21, -30, -70, -90]
    assert "law: it has 2 tokens that the base lacks: 'x', 'y'" in mapped.tokens.notes


@pytest.mark.parametrize("step", [1, 3, 4])
def test_blocks_of_any_size_read_the_same(make_model: MakeModel, step: int):
    base = make_model("base", "abcd", [1, 2, 3, 4])
    chat = make_model("chat", "dcab", [4, 30, 10, 20], dtype=torch.bfloat16)
    (candidate,) = map_by_token("base", base, [chat], TENSORS).candidates
    for name in (*TENSORS, "norm.weight"):
        assert torch.equal(read(candidate, name, step), read(candidate, name))


def test_rows_of_several_dtypes_come_in_float32(make_model: MakeModel):
    base = make_model("base", "abc", [1, 2, 3.001])
    chat = make_model("chat", "ab", [10, 20], dtype=torch.bfloat16)
    same = make_model("same", "cba", [3, 2, 1], dtype=torch.bfloat16)
    lacking, complete = map_by_token("base", base, [chat, same], TENSORS).candidates
    assert read(lacking)[2].item() == pytest.approx(-3.001)
    assert describe(complete, "lm_head.bias").dtype == "BF16"
    doubled = make_model("doubled", "abc", [1, 2, 3], dtype=torch.float64)
    (wide,) = map_by_token("base", doubled, [chat], TENSORS).candidates
    assert read(wide).dtype == torch.float64


def test_a_tensor_that_a_model_lacks_stays_lacking(make_model: MakeModel):
    base = make_model("base", "ab", [1, 2])
    (candidate,) = map_by_token("base", base, [make_model("chat", "ba", [2, 1])], TENSORS).candidates
    assert candidate.describe("none") is None


def test_models_that_cannot_be_mapped_are_all_listed(make_model: MakeModel, make_checkpoint):
    base = make_model("base", "ab", [1, 2])
    short = make_model("short", "abc", [1, 2])
    tensors = {"embed_tokens.weight": torch.ones(2, 7), "lm_head.bias": torch.ones(3)}
    odd = Tokenized(FileSource("odd", read_tensor_views(make_checkpoint("odd", tensors).folder)), vocabulary("ab"))
    with pytest.raises(CheckpointMismatchError) as caught:
        map_by_token("base", base, [short, odd, Tokenized(FileSource("none", {}), vocabulary("ab"))], TENSORS)
    for part in (
        "short: its embeddings have 2 rows, too few for 'c' (2)",
        "odd: its tensors have rows for 2 (embed_tokens.weight), 3 (lm_head.bias) tokens",
        "odd: tensor 'embed_tokens.weight' has rows of shape [7], the base's [2]",
        "none: it lacks tensor 'embed_tokens.weight'",
    ):
        assert part in str(caught.value), part


def test_the_bytes_of_the_rows_that_are_read_are_counted(make_model: MakeModel):
    base = make_model("base", "abc", [1, 2, 3, 9])
    law = make_model("law", "bax", [20, 10, 30], n_added=1, dtype=torch.bfloat16)
    mapped = map_by_token("union", base, [law], TENSORS)
    # Rows of two numbers: a and b from law, c from the base, x (once as a mean) from law.
    assert mapped.base.stored_bytes("embed_tokens.weight") == 3 * 8 + 1 * 4
    assert mapped.candidates[0].stored_bytes("embed_tokens.weight") == 1 * 8 + 3 * 4
    assert mapped.candidates[0].stored_bytes("norm.weight") == 12
