"""Train the demo's encoders: small BERT models that sentence-transformers loads, for retrieval."""

import json
import random
from itertools import cycle
from pathlib import Path

import torch
from topics import PROMPTS
from torch.nn.functional import cross_entropy, normalize
from training import Schedule, batches, optimise, read_rows
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast
from vocabulary import PAD_ID, build_tokenizer, choose_pieces, copy_tokenizer, reduced_embeddings, save_tokenizer

MAX_TOKENS = 48
HIDDEN_SIZE = 128
BASE = Schedule(steps=600, learning_rate=1e-3)
# Above the base's rate: an expert must move far enough to forget, as real experts do.
EXPERT = Schedule(steps=350, learning_rate=1.5e-3)
# The base sees a part of what its experts see, so that they have something to gain.
BASE_ROWS_PER_TASK = 1000
TEMPERATURE = 0.05

# What tells sentence-transformers how tokens become one embedding, in the layout that all its versions read. The
# library's own `save_pretrained` writes module paths that only the version that wrote them knows.
SENTENCE_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
    "1_Pooling/config.json": {
        "word_embedding_dimension": HIDDEN_SIZE,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "2_Normalize/config.json": {},
}


def create_base(folder: Path, seed: int) -> None:
    """Train the base on a part of every task's pairs and save it to `folder` in bfloat16."""
    rows_of_task = {task: read_rows(f"train/{task}_pairs.jsonl.gz") for task in PROMPTS}
    texts = [text for rows in rows_of_task.values() for row in rows for text in (row["query"], *row["pos"])]
    pieces = choose_pieces(texts, [])
    tokenizer = build_tokenizer(pieces, sentence=True, max_length=MAX_TOKENS)
    torch.manual_seed(seed)
    model = _untrained_model(pieces)
    _train(model, tokenizer, [rows[:BASE_ROWS_PER_TASK] for rows in rows_of_task.values()], BASE, seed)
    _save(model, folder)
    save_tokenizer(tokenizer, folder)


def create_expert(base_folder: Path, folder: Path, task: str, seed: int) -> None:
    """Fine-tune the base that was saved to `base_folder` on all pairs of one task."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = BertModel.from_pretrained(base_folder, dtype=torch.float32)
    torch.manual_seed(seed)
    _train(model, tokenizer, [read_rows(f"train/{task}_pairs.jsonl.gz")], EXPERT, seed)
    _save(model, folder)
    copy_tokenizer(base_folder, folder)


def _untrained_model(pieces: list[str]) -> BertModel:
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=PAD_ID,
    )
    model = BertModel(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(reduced_embeddings(pieces, config.hidden_size))
    return model


def _train(
    model: BertModel, tokenizer: PreTrainedTokenizerFast, tasks: list[list[dict]], schedule: Schedule, seed: int
) -> None:
    """Train on batches of one task each, the tasks in turn."""
    streams = cycle([batches(rows, schedule.batch_size, random.Random(seed)) for rows in tasks])
    optimise(model, lambda: _loss(model, next(next(streams)), tokenizer), schedule)


def _loss(model: BertModel, batch: list[dict], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """InfoNCE over the batch's positives and negatives; texts of the query's own group are not held against it."""
    texts = [row[key] if key == "query" else row[key][0] for key in ("query", "pos", "neg") for row in batch]
    queries, positives, negatives = _embed(model, tokenizer, texts).chunk(3)
    similarity = queries @ torch.cat([positives, negatives]).T / TEMPERATURE  # (batch, 2 x batch)
    targets = torch.arange(len(batch))
    groups = [row["group"] for row in batch]
    same_group = torch.tensor([[left == right for right in groups] for left in groups])
    same_group.fill_diagonal_(False)
    similarity[:, : len(batch)] = similarity[:, : len(batch)].masked_fill(same_group, float("-inf"))
    return cross_entropy(similarity, targets)


def _embed(model: BertModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Embed texts as sentence-transformers will: the mean over tokens, then length one. Shape (texts, hidden)."""
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
    return normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def _save(model: BertModel, folder: Path) -> None:
    model.bfloat16().save_pretrained(folder)
    for name, content in SENTENCE_FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
