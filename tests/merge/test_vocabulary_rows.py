"""Rows looked up by token; expected numbers by hand."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_decoder
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.arithmetic.method import TensorInputs
from tasks.arithmetic.methods.linear import Linear
from tasks.checkpoint import read_config, read_tensor_views
from tasks.errors import CheckpointError, CheckpointMismatchError
from tasks.merge.job import Job, Output, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.sources import FileSource, TensorSource, describe, extra_elements, reading_anywhere
from tasks.merge.vocabulary import Mapped, Tokenized, find_vocabulary_tensors, map_by_token
from tasks.merge.weight_files import write_weight_files
from tasks.tensors import TensorView
from tasks.vocabularies import Vocabulary, extend_tokenizer, read_vocabulary

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
        blocks = [read_block(start, min(step, view.n_elements - start), buffer).clone() for start in starts]
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
    assert (mapped.n_rows, mapped.new) == (5, ())
    assert mapped.notes == (
        "law: it lacks 1 of the base's tokens, which count as unchanged: 'c'",
        "law: 1 of its tokens are left out: 'x'",
    )


def test_a_union_fills_padding_and_then_grows_and_who_lacks_a_token_has_the_mean(make_model: MakeModel):
    base = make_model("base", "ab", [1, 2, 9])
    law = make_model("law", "baxy", [20, 10, 30, 50], n_added=2)
    chat = make_model("chat", "abyz", [11, 21, 70, 90], n_added=2)
    mapped = map_by_token("union", base, [law, chat], TENSORS)
    assert [(token["content"], token["id"]) for token in mapped.new] == [("x", 2), ("y", 3), ("z", 4)]
    assert mapped.n_rows == 5
    assert read(mapped.base).tolist() == [-1, -2, -30, -60, -90]
    assert read(mapped.candidates[0]).tolist() == [-10, -20, -30, -50, -90]
    assert read(mapped.candidates[1]).tolist() == [-11, -21, -30, -70, -90]
    assert "law: it has 2 tokens that the base lacks: 'x', 'y'" in mapped.notes


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


def add_tokens(folder: Path, goal: Path, tokens: Sequence[str], seed: int) -> Path:
    """A fine-tune with tokens of its own, as transformers makes it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    torch.manual_seed(seed)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(goal)
    tokenizer.save_pretrained(goal)
    return goal


def load_model(name: str, folder: Path) -> Tokenized:
    return Tokenized(FileSource(name, read_tensor_views(folder)), read_vocabulary(folder / "tokenizer.json"))


def write_merge(mapped: Mapped, base_views: Mapping[str, TensorView], folder: Path) -> None:
    """The candidates' average."""
    layout = plan_layout(mapped.output_views(base_views), "base", 10**9)
    weights = (1 / len(mapped.candidates),) * len(mapped.candidates)
    output = Output(folder, lambda tensor: Linear(TensorInputs(tensor.name, tensor.shape, weights)))
    job = Job(mapped.base, mapped.candidates, [output])
    write_weight_files(job, plan_parts(job, [each for file in layout.files for each in file.tensors]), layout, None)


def test_a_union_of_fine_tunes_loads_in_transformers_and_reads_every_token_as_one(tmp_path: Path):
    base = save_decoder(tmp_path / "base", 1, template="$A", tied=False)
    law = add_tokens(base, tmp_path / "law", ["<law>", "<both>"], 2)
    chat = add_tokens(base, tmp_path / "chat", ["<both>", "<chat>"], 3)
    models = [load_model(name, tmp_path / name) for name in ("base", "law", "chat")]
    base_views = read_tensor_views(base)
    tensors = find_vocabulary_tensors(base_views, read_config(base))
    assert tensors == ["lm_head.weight", "model.embed_tokens.weight"]
    mapped = map_by_token("union", models[0], models[1:], tensors)
    merged = save_decoder(tmp_path / "merged", 9, template="$A", tied=False)
    for path, content in extend_tokenizer(base, mapped.new, mapped.n_rows).items():
        (merged / path).write_bytes(content)
    (merged / "model.safetensors").unlink()
    write_merge(mapped, base_views, merged)

    model, report = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    size = len(AutoTokenizer.from_pretrained(base))
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.encode("<law><both><chat>") == [size, size + 1, size + 2]
    law_rows, chat_rows = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"] for folder in (law, chat)
    )
    rows = model.model.embed_tokens.weight
    torch.testing.assert_close(rows[:size], (law_rows[:size] + chat_rows[:size]) / 2)
    torch.testing.assert_close(rows[size], law_rows[size])
    torch.testing.assert_close(rows[size + 1], (law_rows[size + 1] + chat_rows[size]) / 2)
    torch.testing.assert_close(rows[size + 2], chat_rows[size + 1])
