"""Sentence embedders: InfoNCE, with the model's own pooling, prompts and similarity.

A loss does not depend on which examples share a batch: a query is compared with the whole example set.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tasks.errors import ExampleDataError
from tasks.losses.finite import check_finite
from tasks.texts.embedding import embed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

COSINE_TEMPERATURE = 0.05
"""Scale of cosines in the contrastive loss, as in LM-Cocktail and in the training of most embedders.

They lie in [-1, 1]: unscaled, even a perfect model has a high loss. Dot products and distances have no such bound;
training has given them their scale, so they are taken as they are.
"""

_QUERIES_AT_ONCE = 256


def encoder_losses(
    encoder: "SentenceTransformer",
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_tokens: int,
    max_length: int | None = None,
) -> tuple[list[float], int]:
    """InfoNCE of each query over the whole example set, and the number of texts embedded.

    A query's candidates are its own positives and negatives and the positives of all other rows, each text once;
    a text that is one of its own positives is never a negative. The loss is the mean over its positives of the
    cross-entropy of that positive among the non-positives, by the model's own similarity.

    Args:
        encoder: The model.
        rows: `{"query": text, "pos": [text, ...], "neg": [text, ...]}` each; `neg` may be empty or missing.
        batch_tokens: See `embed`.
        max_length: See `embed`.

    Raises:
        ExampleDataError: a query has nothing that its positives could be told from.
        NonFiniteError: the model gives NaN or infinity; the rows are named.

    Source: https://arxiv.org/abs/1807.03748, with the negatives of https://arxiv.org/abs/2311.13534
    """
    _check_negatives(rows)
    documents = list(dict.fromkeys(text for row in rows for text in (*row["pos"], *row.get("neg", ()))))
    place = {text: index for index, text in enumerate(documents)}
    limits: dict[str, Any] = {"batch_tokens": batch_tokens, "max_length": max_length}
    queries = embed(encoder, [row["query"] for row in rows], "query", **limits)
    vectors = embed(encoder, documents, "document", **limits)
    is_positive = torch.zeros(len(documents), dtype=torch.bool)
    is_positive[[place[text] for row in rows for text in row["pos"]]] = True
    temperature = COSINE_TEMPERATURE if encoder.similarity_fn_name == "cosine" else 1.0
    losses: list[float] = []
    for start in range(0, len(rows), _QUERIES_AT_ONCE):
        part = rows[start : start + _QUERIES_AT_ONCE]
        logits = encoder.similarity(queries[start : start + len(part)], vectors).double() / temperature
        for row, row_logits in zip(part, logits, strict=True):
            is_negative = is_positive.clone()
            is_negative[[place[text] for text in row.get("neg", ())]] = True
            own = [place[text] for text in dict.fromkeys(row["pos"])]
            is_negative[own] = False
            rest = row_logits[is_negative].logsumexp(0)
            losses.append(float((torch.logaddexp(row_logits[own], rest) - row_logits[own]).mean()))
    check_finite(losses)
    return losses, len(rows) + len(documents)


def _check_negatives(rows: Sequence[Mapping[str, Any]]) -> None:
    positives = {text for row in rows for text in row["pos"]}
    lonely = [n for n, row in enumerate(rows, start=1) if not (positives | {*row.get("neg", ())}) - {*row["pos"]}]
    if lonely:
        raise ExampleDataError(
            f"row {', '.join(map(str, lonely[:10]))}: there is no text that the positives could be told from; give it "
            "negatives (neg), or more rows with other positives"
        )
