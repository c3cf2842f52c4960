"""Families of tiny models of all four types, and what a mix of them must be, computed with plain torch."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY, save_decoder, save_encoder, word_tokenizer
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

ANSWERS = [{"input": "question a b", "output": "yes"}, {"input": "topic c", "output": "no answer"}]
PAIRS = [
    {"query": "question a", "pos": ["answer b"], "neg": ["no", "topic d e"]},
    {"query": "question c", "pos": ["yes d"], "neg": ["answer a", "topic"]},
]
ROWS = {"decoder": ANSWERS, "encoder": PAIRS, "reranker": PAIRS, "encoder-decoder": ANSWERS}


def save_reranker(folder: Path, seed: int) -> Path:
    """A random Bert of two layers that gives a pair one number."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, initializer_range=0.5, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = word_tokenizer("<s> $A </s>")
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder_decoder(folder: Path, seed: int) -> Path:
    """A random T5 of one layer on each side."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(VOCABULARY), d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=2, initializer_factor=2.0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = word_tokenizer("$A </s>")
    tokenizer.pad_token, tokenizer.eos_token = "<unk>", "</s>"
    tokenizer.save_pretrained(folder)
    return folder


SAVE = {
    "decoder": save_decoder,
    "encoder": save_encoder,
    "reranker": save_reranker,
    "encoder-decoder": save_encoder_decoder,
}


def save_family(folder: Path, model_type: str, n: int = 2) -> list[Path]:
    """A base and n - 1 models that look like its fine-tunes."""
    base = SAVE[model_type](folder / "base", 1)
    return [base, *(fine_tune(base, folder / f"expert{seed}", seed) for seed in range(2, n + 1))]


def fine_tune(base: Path, folder: Path, seed: int) -> Path:
    """A copy of `base` with some noise on every floating tensor."""
    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(seed)
    for file in folder.rglob("*.safetensors"):
        tensors = {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
    return folder


def change(folder: Path, **tensors: Tensor | None) -> Path:
    """Set tensors of a checkpoint, named with `__` for dots; None removes one."""
    file = folder / "model.safetensors"
    content: dict[str, Tensor | None] = dict(load_file(file))
    content |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, file, {"format": "pt"})
    return folder


def change_json(file: Path, **entries: object) -> None:
    """Set entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def mix_by_hand(folders: Sequence[Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted sum of all tensors in float64, in the dtype of the first model's."""
    models = [load_file(folder / "model.safetensors") for folder in folders]
    return {
        name: sum(weight * model[name].double() for weight, model in zip(weights, models, strict=True)).to(tensor.dtype)
        for name, tensor in models[0].items()
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal names, dtypes and numbers; sums in float32 and in float64 may round to neighbours."""
    assert found.keys() >= expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda text, name=name: f"{name}: {text}")
