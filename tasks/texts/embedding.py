"""Texts to vectors, as the sentence embedder itself would have it."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from tasks.errors import CheckpointError
from tasks.texts.batches import compute_batches
from tasks.texts.limits import position_limit
from tasks.workers.main import report_progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Kind = Literal["query", "document", "text"]
"""What a text is to the embedder; `text`: either side of a symmetric comparison, as of two sentences."""

# In the order in which encode_query and encode_document look for them.
_PROMPT_NAMES: dict[Kind, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
    "text": (),
}


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
        kind: Which of the model's prompts stands in front; of `text` its default prompt, if it has one.
        batch_tokens: Most tokens of a batch, padding included; one longer text is a batch by itself.
        max_length: Most tokens of a text, if that is less than the model's own limit. What is over it is cut off at
            the end, as embedders do.

    Returns:
        float32 [n_texts, dimensions], on the CPU.

    Raises:
        CheckpointError: the tokenizer has no pad token.
    """
    encoders = {"query": encoder.encode_query, "document": encoder.encode_document, "text": encoder.encode}
    encode: Any = encoders[kind]
    vectors: dict[int, Tensor] = {}

    def compute(batch: Sequence[int]) -> Tensor:
        chosen = [texts[index] for index in batch]
        found = encode(chosen, batch_size=len(batch), convert_to_tensor=True, show_progress_bar=False)
        return found.float().cpu()

    with length_limited(encoder, max_length), _padded_on_the_right(encoder):
        for batch, found in compute_batches(_count_tokens(encoder, texts, kind), batch_tokens, compute):
            vectors.update(zip(batch, found, strict=True))
            report_progress(len(vectors), len(texts))
    return torch.stack([vectors[index] for index in range(len(texts))])


@contextmanager
def length_limited(encoder: "SentenceTransformer", max_length: int | None) -> Generator[None]:
    """The least of the model's own limit, that of its table of positions (a folder may promise more), and ours."""
    own_limit = encoder.max_seq_length
    transformer = getattr(encoder[0], "auto_model", None)
    positions = None if transformer is None else position_limit(transformer)
    limits = [limit for limit in (own_limit, positions, max_length) if limit is not None]
    if not limits or min(limits) == own_limit:
        yield
        return
    encoder.max_seq_length = min(limits)
    try:
        yield
    finally:
        encoder.max_seq_length = own_limit


@contextmanager
def _padded_on_the_right(encoder: "SentenceTransformer") -> Generator[None]:
    """So that a text in a table of positions begins at the first row, whichever texts share its batch."""
    tokenizer: Any = encoder.tokenizer
    own_side: str | None = getattr(tokenizer, "padding_side", None)
    if own_side in (None, "right"):
        yield
        return
    tokenizer.padding_side = "right"
    try:
        yield
    finally:
        tokenizer.padding_side = own_side


def _count_tokens(encoder: "SentenceTransformer", texts: Sequence[str], kind: Kind) -> list[int]:
    """Tokens of each text behind the prompt of its kind, at most the model's limit."""
    if not callable(encoder.tokenizer):  # a static embedding's; a token has one character at least
        return [len(text) for text in texts]
    tokenizer: Any = encoder.tokenizer
    if getattr(tokenizer, "pad_token", "") is None:
        raise CheckpointError(
            "the embedder's tokenizer has no pad token, without which texts of different lengths cannot be embedded "
            "together; name one in its tokenizer_config.json (pad_token)"
        )
    prompts: dict[str, str | None] = encoder.prompts
    names = _PROMPT_NAMES[kind] if kind != "text" else (encoder.default_prompt_name,)
    prompt = next((prompts[name] for name in names if name in prompts), None) or ""
    encoded: Any = tokenizer([prompt + text for text in texts], truncation=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    limit = encoder.max_seq_length or max(lengths)
    if n_cut := sum(length > limit for length in lengths):
        logger.warning("%d of %d texts have more than %d tokens and lose their end", n_cut, len(texts), limit)
    return [min(length, limit) for length in lengths]
