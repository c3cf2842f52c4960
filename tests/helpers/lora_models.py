"""Small bases of the LoRA adapters in tests/parity/lora; numbers drawn by numpy, alike in every environment."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)


def make_llama() -> Any:
    """Two layers, the head not tied."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=27, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=False,
        )
    )  # fmt: skip


def make_gpt2() -> Any:
    """One layer with GPT-2's transposed matrices, one of them square, and a tied head."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=16))


def make_bert() -> Any:
    """One layer and a classifier."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, num_labels=1,
        )
    )  # fmt: skip


BASES: Mapping[str, Callable[[], Any]] = {
    "patterns": make_llama, "stabilised": make_llama, "conv1d": make_gpt2, "classifier": make_bert,
}  # fmt: skip
"""Case to what makes its base."""


def draw_numbers(module: Any, seed: int, scale: float = 0.3) -> Any:
    """Fill all parameters in the order of their names."""
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            numbers = draw.normal(0, scale, tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(numbers))
    return module


def save_base(case: str, folder: Path) -> Path:
    """The base of a case, as a checkpoint."""
    draw_numbers(BASES[case](), seed=1).save_pretrained(folder)
    return folder
