"""Train the demo's decoders: small Llamas that answer a prompt with one label word."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from topics import LABELS, PROMPTS
from torch.nn.functional import cross_entropy
from training import Schedule, batches, optimise, read_rows
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vocabulary import (
    END_ID,
    PAD_ID,
    build_tokenizer,
    choose_pieces,
    copy_tokenizer,
    reduced_embeddings,
    save_tokenizer,
)

MAX_TOKENS = 128
BASE = Schedule(steps=700, learning_rate=2e-3)
EXPERT = Schedule(steps=400, learning_rate=1e-3)
# The base sees a part of what its experts see, so that they have something to gain.
BASE_ROWS_PER_TASK = 500
# While the base is trained, this share of the positions of a prompt also predicts the next token of the prompt.
LANGUAGE_POSITIONS, LANGUAGE_WEIGHT = 0.15, 0.2
# The end token after a label follows so surely that a tenth of the label's weight teaches it.
END_WEIGHT = 0.1


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt, its label and the end token; `prompt_length` counts the prompt's tokens."""

    tokens: tuple[int, ...]
    prompt_length: int


def create_base(folder: Path, seed: int) -> None:
    """Train the base on a part of every task's rows and save it to `folder` in bfloat16."""
    texts = [row["input"] for task in PROMPTS for row in read_rows(f"train/{task}.jsonl.gz")]
    pieces = choose_pieces(texts, [label for labels in LABELS.values() for label in labels])
    tokenizer = build_tokenizer(pieces, sentence=False, max_length=MAX_TOKENS)
    torch.manual_seed(seed)
    model = _untrained_model(pieces)
    rows = [row for task in PROMPTS for row in read_rows(f"train/{task}.jsonl.gz")[:BASE_ROWS_PER_TASK]]
    _train(model, _encode(rows, tokenizer), BASE, seed, language_weight=LANGUAGE_WEIGHT)
    model.bfloat16().save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def create_expert(base_folder: Path, folder: Path, task: str, seed: int) -> None:
    """Fine-tune the base that was saved to `base_folder` on all rows of one task."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    torch.manual_seed(seed)
    _train(model, _encode(read_rows(f"train/{task}.jsonl.gz"), tokenizer), EXPERT, seed, language_weight=0.0)
    model.bfloat16().save_pretrained(folder)
    copy_tokenizer(base_folder, folder)


def _untrained_model(pieces: list[str]) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(pieces),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(reduced_embeddings(pieces, config.hidden_size))
    return model


def _encode(rows: list[dict], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Tokenize rows; a prompt that is too long loses the beginning, since the answer must follow its end."""
    examples = []
    for row in rows:
        prompt = tokenizer.encode(row["input"])[-(MAX_TOKENS - 2) :]
        answer = tokenizer.encode(f" {row['output']}")
        examples.append(Example((*prompt, *answer, END_ID), len(prompt)))
    return examples


def _train(
    model: LlamaForCausalLM, examples: list[Example], schedule: Schedule, seed: int, language_weight: float
) -> None:
    stream = batches(examples, schedule.batch_size, random.Random(seed))
    optimise(model, lambda: _loss(model, next(stream), language_weight), schedule)


def _loss(model: LlamaForCausalLM, batch: list[Example], language_weight: float) -> torch.Tensor:
    """Cross-entropy of the labels, of the end tokens and, for the base, of some positions of the prompts.

    Logits are computed at these positions only: over all positions they would cost more than the layers.
    """
    length = max(len(example.tokens) for example in batch)
    tokens = torch.tensor([(*example.tokens, *[PAD_ID] * (length - len(example.tokens))) for example in batch])
    hidden = model.model(input_ids=tokens, attention_mask=(tokens != PAD_ID).long()).last_hidden_state
    rows = torch.arange(len(batch))
    label_positions = torch.tensor([example.prompt_length for example in batch])
    loss = torch.zeros(())
    for positions, weight in ((label_positions, 1.0), (label_positions + 1, END_WEIGHT)):
        logits = model.lm_head(hidden[rows, positions - 1])
        loss = loss + weight * cross_entropy(logits, tokens[rows, positions])
    if language_weight:
        is_prompt = torch.arange(length) < label_positions[:, None]
        chosen = is_prompt[:, 1:] & (torch.rand(len(batch), length - 1) < LANGUAGE_POSITIONS)
        if chosen.any():
            logits = model.lm_head(hidden[:, :-1][chosen])
            loss = loss + language_weight * cross_entropy(logits, tokens[:, 1:][chosen])
    return loss
