"""The loss of a resident model on examples, example by example, in nats.

A loss does not depend on which examples share a batch, beyond float rounding: decoders pad on the right behind an
attention mask, and the encoders' contrastive loss compares with the whole example set instead of with a batch.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tasks.errors import ExampleDataError, NonFiniteError
from tasks.resident import ResidentDecoder
from tasks.texts.answers import tokenise_answers
from tasks.texts.batches import token_batches
from tasks.texts.embedding import embed
from tasks.workers.main import report_progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

COSINE_TEMPERATURE = 0.05
"""Scale of cosines in the contrastive loss, as in LM-Cocktail and in the training of most embedders.

They lie in [-1, 1]: unscaled, even a perfect model has a high loss. Dot products and distances have no such bound;
training has given them their scale, so they are taken as they are.
"""

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class AnswerLikelihood:
    """How likely a model finds an answer after its prompt."""

    log_likelihood: float
    """Sum over the answer's tokens, in nats."""
    n_tokens: int
    """Tokens of the answer."""


def answer_likelihoods(
    decoder: ResidentDecoder, prompts: Sequence[str], answers: Sequence[str], *, batch_tokens: int, max_length: int
) -> list[AnswerLikelihood]:
    """How likely the decoder finds each answer after its prompt; see `tasks.texts.answers` for where answers begin.

    Answers that share all tokens but the last, such as labels of one token after the same prompt, share one
    computation.

    Args:
        decoder: The model, as `resident_decoder` gives it.
        prompts: One per answer; may be repeated.
        answers: The texts to predict.
        batch_tokens: Most tokens of a batch, padding included; one longer text is a batch by itself.
        max_length: Most tokens of a text; the model's own limit holds as well.

    Returns:
        One per pair, in their order.

    Raises:
        ExampleDataError: answers are over the limit or cannot be predicted; they are named by row.
        NonFiniteError: the model gives NaN or infinity; the rows are named.
    """
    tokenised = tokenise_answers(decoder.tokenizer, prompts, answers, _length_limit(decoder, max_length))
    rows_of: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, answer in enumerate(tokenised):
        rows_of[answer.context].append(row)
    contexts = list(rows_of)
    found: dict[int, float] = {}
    for batch in token_batches([len(context) for context in contexts], batch_tokens):
        rows = {contexts[index]: rows_of[contexts[index]] for index in batch}
        labels = {context: [tokenised[row].labels for row in rows[context]] for context in rows}
        values = _batch_log_likelihoods(decoder, labels)
        found.update(zip((row for context in rows for row in rows[context]), values, strict=True))
        report_progress(len(found), len(tokenised))
    likelihoods = [AnswerLikelihood(found[row], len(answer.labels)) for row, answer in enumerate(tokenised)]
    check_finite([likelihood.log_likelihood for likelihood in likelihoods])
    return likelihoods


def decoder_losses(
    decoder: ResidentDecoder, rows: Sequence[Mapping[str, Any]], *, batch_tokens: int, max_length: int
) -> tuple[list[float], int]:
    """Mean cross-entropy of each output's tokens after its input, and the number of all these tokens.

    Args:
        decoder: The model.
        rows: `{"input": text, "output": text}` each.
        batch_tokens: See `answer_likelihoods`, whose errors are raised.
        max_length: See `answer_likelihoods`.
    """
    prompts, answers = [row["input"] for row in rows], [row["output"] for row in rows]
    likelihoods = answer_likelihoods(decoder, prompts, answers, batch_tokens=batch_tokens, max_length=max_length)
    losses = [-likelihood.log_likelihood / likelihood.n_tokens for likelihood in likelihoods]
    return losses, sum(likelihood.n_tokens for likelihood in likelihoods)


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


def check_finite(values: Sequence[float]) -> None:
    """Refuse NaN and infinity: softmax would spread them over the weights of all models.

    Raises:
        NonFiniteError: with the rows, counted from 1.
    """
    if bad := [row for row, value in enumerate(values, start=1) if not math.isfinite(value)]:
        listed = ", ".join(map(str, bad[:10])) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise NonFiniteError(
            f"the loss of row {listed} is not finite: the model's tensors hold NaN or infinity, or its numbers are too "
            "large for this dtype (try score.dtype: float32)"
        )


@torch.inference_mode()
def _batch_log_likelihoods(
    decoder: ResidentDecoder, labels_of: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]]
) -> list[float]:
    """Log-likelihood of every sequence of labels, context by context; see `tasks.texts.answers.TokenisedAnswer`."""
    contexts = list(labels_of)
    longest = {context: max(map(len, labels_of[context])) for context in contexts}
    input_ids = torch.zeros(len(contexts), max(map(len, contexts)), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, context in enumerate(contexts):
        # Any token can pad: it stands behind all real ones, so they cannot see it, and the mask hides it anyway.
        input_ids[row, : len(context)] = torch.tensor(context)
        mask[row, : len(context)] = 1
    positions = sorted({p for context in contexts for p in range(len(context) - longest[context], len(context))})
    place = {position: index for index, position in enumerate(positions)}
    logits = _logits_at(decoder, input_ids, mask, positions)
    values: list[Tensor] = []
    for row, context in enumerate(contexts):
        start = place[len(context) - longest[context]]
        # In float32 whatever the model computes in: a sum over the vocabulary in bfloat16 would be off by percents.
        log_probabilities = logits[row, start : start + longest[context]].float().log_softmax(-1)
        for labels in labels_of[context]:
            wanted = torch.tensor(labels, device=logits.device)
            values.append(log_probabilities[-len(labels) :].gather(1, wanted[:, None]).double().sum())
    return torch.stack(values).tolist()


def _logits_at(decoder: ResidentDecoder, input_ids: Tensor, mask: Tensor, positions: Sequence[int]) -> Tensor:
    """Logits [rows, positions, vocabulary]: all positions of all rows would take far more memory than the model."""
    kept = torch.tensor(positions, device=decoder.device)
    arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask}
    arguments = {key: tensor.to(decoder.device) for key, tensor in arguments.items()}
    if "logits_to_keep" in inspect.signature(decoder.model.forward).parameters:
        arguments["logits_to_keep"] = kept
    logits = decoder.model(**arguments, use_cache=False).logits
    # A few architectures have no such argument and give all positions.
    return logits if logits.shape[1] == len(positions) else logits[:, kept]


def _length_limit(decoder: ResidentDecoder, max_length: int) -> int:
    own_limit = getattr(decoder.model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, own_limit or max_length)


def _check_negatives(rows: Sequence[Mapping[str, Any]]) -> None:
    positives = {text for row in rows for text in row["pos"]}
    lonely = [n for n, row in enumerate(rows, start=1) if not (positives | {*row.get("neg", ())}) - {*row["pos"]}]
    if lonely:
        raise ExampleDataError(
            f"row {', '.join(map(str, lonely[:10]))}: there is no text that the positives could be told from; give it "
            "negatives (neg), or more rows with other positives"
        )
