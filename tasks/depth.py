"""Where in the model a tensor is, from its name alone: 0 at the first layer, 1 at the last.

The meaning is mergekit's: layer i of n has depth i / (n - 1), a single layer 1; what comes before the layers has 0,
what comes behind them 1. mergekit knows the names of each architecture; here they are read from the layout that all of
them share, so that any architecture works.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What comes before the layers has one of these in its name: embed_tokens, tok_embeddings, word_embedding, wte, wpe,
# the shared of T5, patch_embed, the convolutions of Whisper.
_BEFORE = re.compile(r"embed|emb\b|\bwte\b|\bwpe\b|\bshared\b|\bconv\d?\b|\bcls_token\b|\bproject_in\b")
# The head of GPT-NeoX is called embed_out.
_BEHIND = re.compile(r"\bembed_out\b")
_LAYER = re.compile(r"(?:^|[./])(\d+)(?=\.)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor is."""

    depth: float
    """From 0 to 1."""
    stack: str | None = None
    """What stands in a name before the number of the layer, e.g. `model.layers`; None outside of all layers."""
    layer: int | None = None
    """Number of the layer in its stack, from 0."""


def depth_of(names: Iterable[str]) -> dict[str, float]:
    """How deep in the model each tensor is, from 0 to 1.

    Args:
        names: Of all tensors of the model: how many layers there are is read from them.
    """
    return {name: place.depth for name, place in locate(names).items()}


def locate(names: Iterable[str]) -> dict[str, Place]:
    """Where each tensor is.

    The first number in a name is that of the layer: later ones are parts of it, such as the experts of a mixture. What
    stands before it names the stack. Each has a depth of its own: encoder and decoder of a T5 both go from 0 to 1.
    Numbers that leave some out are no layers but parts of a head, between which parts without tensors stand.

    Args:
        names: Of all tensors of the model, in any order.
    """
    names = list(names)
    numbered = {name: (name[: match.start()], int(match[1])) for name in names if (match := _LAYER.search(name))}
    layers: dict[str, set[int]] = {}
    for stack, layer in numbered.values():
        layers.setdefault(stack, set()).add(layer)
    sizes = {stack: len(found) for stack, found in layers.items() if max(found) == len(found) - 1}
    return {name: _place(name, numbered.get(name), sizes) for name in names}


def _place(name: str, numbered: tuple[str, int] | None, sizes: Mapping[str, int]) -> Place:
    if numbered is not None and numbered[0] in sizes:
        stack, layer = numbered
        return Place(layer / (sizes[stack] - 1) if sizes[stack] > 1 else 1.0, stack, layer)
    return Place(0.0 if _BEFORE.search(name) and not _BEHIND.search(name) else 1.0)
