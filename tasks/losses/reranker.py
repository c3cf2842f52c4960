"""Rerankers (cross-encoders): how high a row's positives are ranked above its negatives, listwise.

A loss does not depend on other rows, nor on which pairs share a batch.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.errors import CheckpointError, ExampleDataError
from tasks.losses.finite import check_finite
from tasks.resident import ResidentModel
from tasks.texts.batches import compute_batches
from tasks.texts.limits import length_limit
from tasks.texts.pairs import tokenise_pairs
from tasks.workers.main import report_progress

logger = logging.getLogger(__name__)


def reranker_losses(
    reranker: ResidentModel, rows: Sequence[Mapping[str, Any]], *, batch_tokens: int, max_length: int
) -> tuple[list[float], int]:
    """Listwise cross-entropy of each row, and the number of pairs read.

    The loss is the mean over a row's positives of the cross-entropy of that positive among itself and the row's
    negatives, each text once. Scores are taken as the model gives them, without an activation: training has given them
    their scale.

    Args:
        reranker: The model. Of one logit, that is the score; of two, the score is the log-odds of the second.
        rows: `{"query": text, "pos": [text, ...], "neg": [text, ...]}` each, with at least one text in both.
        batch_tokens: Most tokens of a batch, padding included; one longer pair is a batch by itself.
        max_length: Most tokens of a pair; the model's own limit holds as well. Documents are cut, queries never.

    Raises:
        CheckpointError: the model has more than two logits.
        ExampleDataError: a row has no negative, or a query leaves no room for a document.
        NonFiniteError: the model gives NaN or infinity; the rows are named.
    """
    if lonely := [str(number) for number, row in enumerate(rows, start=1) if not row.get("neg")]:
        raise ExampleDataError(f"row {', '.join(lonely[:10])}: there is no negative (neg) to rank the positives above")
    lists = [(list(dict.fromkeys(row["pos"])), list(dict.fromkeys(row["neg"]))) for row in rows]
    queries = [row["query"] for row, (pos, neg) in zip(rows, lists, strict=True) for _ in (*pos, *neg)]
    documents = [text for pos, neg in lists for text in (*pos, *neg)]
    scores = iter(score_pairs(reranker, queries, documents, batch_tokens=batch_tokens, max_length=max_length))
    losses: list[float] = []
    for pos, neg in lists:
        positive = torch.tensor([next(scores) for _ in pos], dtype=torch.float64)
        negative = torch.tensor([next(scores) for _ in neg], dtype=torch.float64)
        losses.append(float((torch.logaddexp(positive, negative.logsumexp(0)) - positive).mean()))
    check_finite(losses)
    return losses, len(documents)


def score_pairs(
    reranker: ResidentModel, queries: Sequence[str], documents: Sequence[str], *, batch_tokens: int, max_length: int
) -> list[float]:
    """How well each document answers its query, without an activation; higher is better. It may be NaN or infinite.

    Args:
        reranker: See `reranker_losses`.
        queries: One per document; may be repeated.
        documents: One per query.
        batch_tokens: See `reranker_losses`.
        max_length: See `reranker_losses`.

    Raises:
        CheckpointError: the model has more than two logits.
        ExampleDataError: a query leaves no room for a document.
    """
    if (n_logits := reranker.model.config.num_labels) not in (1, 2):
        raise CheckpointError(f"{reranker.folder}: a reranker has one logit or two, this model has {n_logits}")
    pairs = tokenise_pairs(reranker.tokenizer, queries, documents, length_limit(reranker, max_length))
    # A decoder with a head finds the last token by its pad token; without one it takes one text at a time.
    can_pad = reranker.tokenizer.pad_token is not None and reranker.model.config.pad_token_id is not None
    if not can_pad:
        logger.warning("the tokenizer or the configuration has no pad token, so pairs are read one by one, slowly")
    scores: dict[int, float] = {}

    def compute(batch: Sequence[int]) -> list[float]:
        return _batch_scores(reranker, [pairs[index] for index in batch])

    lengths = [len(pair["input_ids"]) for pair in pairs]
    for batch, found in compute_batches(lengths, batch_tokens if can_pad else 1, compute):
        scores.update(zip(batch, found, strict=True))
        report_progress(len(scores), len(pairs))
    return [scores[index] for index in range(len(pairs))]


@torch.inference_mode()
def _batch_scores(reranker: ResidentModel, pairs: Sequence[Mapping[str, list[int]]]) -> list[float]:
    columns = {key: [pair[key] for pair in pairs] for key in pairs[0]}
    # On the right whatever the tokenizer says: on the left, texts in tables of positions would begin at another row.
    padded = reranker.tokenizer.pad(
        columns, padding=len(pairs) > 1, padding_side="right", return_tensors="pt", verbose=False
    )
    for ids, pair in zip(padded["input_ids"], pairs, strict=True):
        # The model tells padding by the token that its own configuration names, which may not be the tokenizer's.
        ids[len(pair["input_ids"]) :] = reranker.model.config.pad_token_id or 0
    logits: Tensor = reranker.model(**padded.to(reranker.device)).logits.double()
    return (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).tolist()
