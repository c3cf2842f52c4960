"""Encoder-decoders: the cross-entropy of an output's tokens given its input.

A loss does not depend on which examples share a batch, beyond float rounding: both sides are padded on the right, the
source behind an attention mask, the target where the loss does not look.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from tasks.losses.finite import check_finite
from tasks.losses.limits import length_limit
from tasks.resident import ResidentModel
from tasks.texts.batches import token_batches
from tasks.texts.translations import TokenisedTranslation, tokenise_translations
from tasks.workers.main import report_progress

_IGNORED = -100
"""A label that transformers and torch take for none."""


def encoder_decoder_losses(
    model: ResidentModel, rows: Sequence[Mapping[str, Any]], *, batch_tokens: int, max_length: int
) -> tuple[list[float], int]:
    """Mean cross-entropy of each output's tokens, and the number of all these tokens.

    Args:
        model: The model.
        rows: `{"input": text, "output": text}` each.
        batch_tokens: Most tokens of a batch, source and target together, padding included; a longer row stands alone.
        max_length: Most tokens of either side; the model's own limit holds as well.

    Raises:
        ExampleDataError: outputs are empty or over the limit; they are named by row.
        NonFiniteError: the model gives NaN or infinity; the rows are named.
    """
    inputs, outputs = [row["input"] for row in rows], [row["output"] for row in rows]
    tokenised = tokenise_translations(model.tokenizer, inputs, outputs, length_limit(model, max_length))
    found: dict[int, float] = {}
    for batch in token_batches([len(row.source) + len(row.target) for row in tokenised], batch_tokens):
        found.update(zip(batch, _batch_losses(model, [tokenised[index] for index in batch]), strict=True))
        report_progress(len(found), len(rows))
    losses = [found[row] for row in range(len(rows))]
    check_finite(losses)
    return losses, sum(len(row.target) for row in tokenised)


@torch.inference_mode()
def _batch_losses(model: ResidentModel, batch: Sequence[TokenisedTranslation]) -> list[float]:
    sources = [torch.tensor(row.source) for row in batch]
    targets = [torch.tensor(row.target) for row in batch]
    masks = [torch.ones(len(row.source), dtype=torch.long) for row in batch]
    labels = pad_sequence(targets, batch_first=True, padding_value=_IGNORED).to(model.device)
    # Given the labels, the model makes the decoder's inputs from them by its own rule.
    logits = model.model(
        input_ids=pad_sequence(sources, batch_first=True).to(model.device),
        attention_mask=pad_sequence(masks, batch_first=True).to(model.device),
        labels=labels,
        use_cache=False,
    ).logits
    # In float32 whatever the model computes in; [rows, vocabulary, tokens] is the order that torch asks for.
    tokens = cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none").double()
    return (tokens.sum(1) / (labels != _IGNORED).sum(1)).tolist()
