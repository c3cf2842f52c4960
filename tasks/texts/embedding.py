"""Texts to vectors, as the sentence embedder itself would have it."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from tasks.texts.batches import token_batches
from tasks.workers.main import report_progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Kind = Literal["query", "document"]

# In the order in which encode_query and encode_document look for them.
_PROMPT_NAMES: dict[Kind, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


def embed(
    encoder: "SentenceTransformer",
    texts: Sequence[str],
    kind: Kind,
    *,
    batch_tokens: int,
    max_length: int | None = None,
) -> Tensor:
    """Embed texts with the model's own prompt for their kind, pooling and normalisation.

    Args:
        encoder: The model, as `resident_encoder` gives it.
        texts: At least one.
        kind: Which of the model's prompts stands in front.
        batch_tokens: Most tokens of a batch, padding included; one longer text is a batch by itself.
        max_length: Most tokens of a text, if that is less than the model's own limit. What is over it is cut off at
            the end, as embedders do.

    Returns:
        float32 [n_texts, dimensions], on the CPU.
    """
    encode = encoder.encode_query if kind == "query" else encoder.encode_document
    vectors: dict[int, Tensor] = {}
    with _length_limited(encoder, max_length):
        for batch in token_batches(_count_tokens(encoder, texts, kind), batch_tokens):
            found = encode(
                [texts[index] for index in batch],
                batch_size=len(batch),
                convert_to_tensor=True,
                show_progress_bar=False,
            )
            vectors.update(zip(batch, found.float().cpu(), strict=True))
            report_progress(len(vectors), len(texts))
    return torch.stack([vectors[index] for index in range(len(texts))])


@contextmanager
def _length_limited(encoder: "SentenceTransformer", max_length: int | None) -> Generator[None]:
    own_limit = encoder.max_seq_length
    if max_length is None or (own_limit is not None and own_limit <= max_length):
        yield
        return
    encoder.max_seq_length = max_length
    try:
        yield
    finally:
        encoder.max_seq_length = own_limit


def _count_tokens(encoder: "SentenceTransformer", texts: Sequence[str], kind: Kind) -> list[int]:
    """Tokens of each text behind the prompt of its kind, at most the model's limit."""
    if not callable(encoder.tokenizer):  # a static embedding's; a token has one character at least
        return [len(text) for text in texts]
    tokenizer: Any = encoder.tokenizer
    prompts: dict[str, str | None] = encoder.prompts
    prompt = next((prompts[name] for name in _PROMPT_NAMES[kind] if name in prompts), None) or ""
    encoded: Any = tokenizer([prompt + text for text in texts], truncation=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    limit = encoder.max_seq_length or max(lengths)
    if n_cut := sum(length > limit for length in lengths):
        logger.warning("%d of %d texts have more than %d tokens and lose their end", n_cut, len(texts), limit)
    return [min(length, limit) for length in lengths]
