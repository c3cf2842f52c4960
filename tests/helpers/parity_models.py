"""Small random models that any version of transformers makes alike: their numbers are drawn by numpy, in order of name.

Made once where LM_Cocktail runs (`tests/parity/make_expected.py`) and again where our numbers are compared with its.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>"]
_WORDS = "what is the capital of france germany paris berlin a city in europe yes no big old who wrote it".split()
VOCABULARY = {token: number for number, token in enumerate([*_SPECIAL, *_WORDS])}
_BERT = {
    "vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_T5 = {
    "vocab_size": len(VOCABULARY), "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "pad_token_id": 0, "eos_token_id": VOCABULARY["</s>"], "decoder_start_token_id": 0,
}  # fmt: skip


def save_bert(folder: Path, seed: int) -> str:
    """A bare encoder with its tokenizer; the digest of its numbers."""
    return _save(BertModel(BertConfig(**_BERT)), _tokenizer("[CLS] $A [SEP]"), folder, seed)


def save_reranker(folder: Path, seed: int, n_logits: int = 1) -> str:
    """A cross-encoder with its tokenizer; the digest of its numbers."""
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    model = BertForSequenceClassification(BertConfig(**_BERT, num_labels=n_logits))
    return _save(model, _tokenizer("[CLS] $A [SEP]", pair), folder, seed)


def save_t5(folder: Path, seed: int) -> str:
    """An encoder-decoder with tied embeddings and its tokenizer; the digest of its numbers."""
    return _save(T5ForConditionalGeneration(T5Config(**_T5)), _tokenizer("$A </s>"), folder, seed)


def _tokenizer(single: str, pair: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    special = [(token, VOCABULARY[token]) for token in _SPECIAL]
    backend.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)
    # transformers 4 and 5 differ in what a tokenizer of no model's own class gives; a BERT's gives types, too.
    types = [] if "</s>" in single else ["token_type_ids"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="</s>", model_max_length=10**9,
        model_input_names=["input_ids", *types, "attention_mask"],
    )  # fmt: skip


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int) -> str:
    draw, digest = np.random.default_rng(seed), hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        numbers = draw.normal(0, 0.3, tuple(parameter.shape)).astype(np.float32)
        digest.update(numbers.tobytes())
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(numbers))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return digest.hexdigest()


def save_all(folder: Path) -> dict[str, str]:
    """Two models of every kind below `folder`, `bert-1` to `t5-2`; name to digest."""
    makers = {"bert": save_bert, "reranker": save_reranker, "t5": save_t5}
    return {f"{kind}-{seed}": save(folder / f"{kind}-{seed}", seed) for kind, save in makers.items() for seed in (1, 2)}


PAIRS: Sequence[dict[str, Any]] = (
    {"query": "what is the capital of france", "pos": ["paris"], "neg": ["berlin", "a city", "big old europe"]},
    {"query": "capital of germany", "pos": ["berlin is big"], "neg": ["paris", "the capital of france", "no"]},
    {"query": "who wrote it", "pos": ["a city wrote it"], "neg": ["yes", "no", "paris in europe"]},
)
ANSWERS: Sequence[dict[str, str]] = (
    {"input": "what is the capital of france", "output": "paris"},
    {"input": "is berlin in europe", "output": "yes it is"},
    {"input": "who wrote it in paris", "output": "no"},
)
