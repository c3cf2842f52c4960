"""Log-probabilities of chosen tokens at chosen places, without the logits of all other places.

The logits of a batch, [rows, tokens, vocabulary], often take more memory than the model; labels stand at few of those
places, and in each row at others. So the body runs over the whole batch, but the output embedding over the wanted
places alone. The model's own forward does it: a hook hands its output embedding other rows than it was given, so
whatever an architecture does behind it (a bias, Gemma's cap, Cohere's scale) is done as ever.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

CHUNK_NUMBERS = 2**24
"""Most logits that are made at once, where the output embedding is known to make them alone: 64 MiB in float32."""

# Places at which the output embedding alone is compared with the model; each is compared over the whole vocabulary.
_PROBED = 4
# Output embeddings behind which their models were seen to do something more.
_followed: WeakSet[nn.Module] = WeakSet()


@dataclass(slots=True)
class Labels:
    """Which tokens are asked for, and where: flat lists, so that one place may have several labels."""

    rows: list[int] = field(default_factory=list[int])
    """Row of the batch of each place."""
    positions: list[int] = field(default_factory=list[int])
    """Token position of each place, at which the model predicts the next token."""
    places: list[int] = field(default_factory=list[int])
    """Of each label, the index of its place; never falling."""
    tokens: list[int] = field(default_factory=list[int])
    """Token id of each label."""

    def add_place(self, row: int, position: int, tokens: Sequence[int]) -> None:
        """One more place, with the tokens that are asked for there."""
        self.places += [len(self.rows)] * len(tokens)
        self.tokens += tokens
        self.rows.append(row)
        self.positions.append(position)


@torch.inference_mode()
def label_log_probabilities(model: Any, arguments: Mapping[str, Tensor], labels: Labels) -> Tensor:
    """Log-probability of each label at its place, in nats.

    Softmax is taken in float32 whatever the model computes in: in bfloat16 a sum over the vocabulary is off by
    percents.

    Args:
        model: Of transformers, with logits over its vocabulary.
        arguments: What it is called with, on its device; no labels.
        labels: At least one place.

    Returns:
        float64 [n_labels], on the CPU.
    """
    places, tokens = torch.tensor(labels.places), torch.tensor(labels.tokens)
    found = torch.empty(len(labels.tokens), dtype=torch.float64)
    start = 0
    for logits in _logits_of(model, arguments, torch.tensor(labels.rows), torch.tensor(labels.positions)):
        first, last = (int(n) for n in torch.searchsorted(places, torch.tensor([start, start + len(logits)])))
        # Once per place, of which many labels, such as those of a classification, may stand at one.
        own = logits.float().log_softmax(-1)
        found[first:last] = _at(own, places[first:last] - start, tokens[first:last]).double().cpu()
        start += len(logits)
    return found


def _logits_of(model: Any, arguments: Mapping[str, Tensor], rows: Tensor, positions: Tensor) -> Iterator[Tensor]:
    """Logits of the places in their order, some places at a time: [places, vocabulary]."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None:
        yield _at(model(**arguments, use_cache=False).logits, rows, positions)
        return
    n_first = len(rows) if head in _followed else min(len(rows), _PROBED)
    hidden, logits = _through(head, model, arguments, rows[:n_first], positions[:n_first])
    if hidden is None:
        # What makes the logits is called otherwise than with one vector per token, so it made all of them.
        yield _at(logits, rows, positions)
    elif n_first == len(rows):
        yield logits[0]
    elif torch.equal(logits.to(hidden.device), head(_at(hidden, rows, positions)[None, :n_first]).to(hidden.device)):
        del logits
        n_places = max(1, CHUNK_NUMBERS // head.weight.shape[0])
        for start in range(0, len(rows), n_places):
            yield head(_at(hidden, rows[start : start + n_places], positions[start : start + n_places]))
    else:
        # Something follows the output embedding, so only the whole model makes its logits.
        _followed.add(head)
        del hidden, logits
        yield _through(head, model, arguments, rows, positions)[1][0]


def _through(
    head: nn.Module, model: Any, arguments: Mapping[str, Tensor], rows: Tensor, positions: Tensor
) -> tuple[Tensor | None, Tensor]:
    """What the output embedding is given, [rows, tokens, size], and the model's logits of the places, [1, places, ...].

    Where it is given something else, None and the logits of all tokens.
    """
    expected = arguments.get("decoder_input_ids", arguments["input_ids"]).shape
    given: list[Tensor] = []

    def hand_on(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        if len(inputs) != 1 or inputs[0].shape[:-1] != expected:
            return None
        given.append(inputs[0])
        return (_at(inputs[0], rows, positions)[None],)

    hook = head.register_forward_pre_hook(hand_on)
    try:
        logits = model(**arguments, use_cache=False).logits
    finally:
        hook.remove()
    return (given[0] if given else None), logits


def _at(values: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """[places, ...] of [rows, tokens, ...]; or [labels] of [places, vocabulary]."""
    return values[rows.to(values.device), positions.to(values.device)]
