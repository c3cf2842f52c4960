"""Which elements of a model are looked at to judge a merge: the same at every run and on every machine.

Each part of the model, a layer say, has a budget, which its tensors share by size. A tensor's elements are taken in
pieces spread evenly over it, so that every tensor is seen, however many there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.depth import Place, locate
from tasks.tensors import TensorView

GROUP_ELEMENTS = 256 * 1024
"""Budget of one part of the model."""
# What reading it costs hardly depends on its length below this. Vectors, such as norms, are mostly shorter: all of one
# is looked at.
_FEWEST_ELEMENTS = 4096
# Of one tensor, so that one thread is not left with the largest.
_PIECES_PER_SAMPLE = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of the elements of a tensor, the work of one thread."""

    group: str
    """The part of the model that the tensor belongs to."""
    tensor: TensorView
    pieces: tuple[tuple[int, int], ...]
    """Index of the first element, and how many: `REDUCTION_BLOCK` at most."""
    scale: float
    """How many elements of the tensor each of these stands for."""

    @property
    def n_elements(self) -> int:
        """How many are looked at."""
        return sum(n_elements for _, n_elements in self.pieces)


def choose_samples(tensors: Iterable[TensorView], budget: int | None = GROUP_ELEMENTS) -> list[Sample]:
    """What is looked at of some tensors, part by part from front to back.

    Args:
        tensors: All floating tensors of a model.
        budget: About how many elements of each part of the model; None for all.
    """
    return [
        Sample(group, tensor, pieces[first : first + _PIECES_PER_SAMPLE], tensor.n_elements / sum(n for _, n in pieces))
        for group, members in group_tensors(tensors).items()
        for tensor, pieces in _share(members, budget)
        for first in range(0, len(pieces), _PIECES_PER_SAMPLE)
    ]


def group_tensors(tensors: Iterable[TensorView]) -> dict[str, list[TensorView]]:
    """Parts of the model, from front to back, to their tensors: embeddings, every layer, head.

    Layers are called `layer 0` where the model has one stack of them, else by their stack: `encoder.block 0`.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    places = locate(by_name)
    one_stack = len({place.stack for place in places.values() if place.stack is not None}) == 1
    groups: dict[str, list[TensorView]] = {}
    for name in sorted(by_name, key=lambda name: _from_front_to_back(places[name])):
        groups.setdefault(_group_name(places[name], one_stack), []).append(by_name[name])
    return groups


def spread(n_elements: int, wanted: int) -> tuple[tuple[int, int], ...]:
    """Cut pieces out of a tensor at equal distances, of equal length and `REDUCTION_BLOCK` at most.

    Args:
        n_elements: Of the tensor.
        wanted: About how many to take. As many as there are gives all, block after block.

    Returns:
        First element and length of each.
    """
    if wanted >= n_elements:
        starts = range(0, n_elements, REDUCTION_BLOCK)
        return tuple((first, min(REDUCTION_BLOCK, n_elements - first)) for first in starts)
    n_pieces = -(-wanted // REDUCTION_BLOCK)
    length = wanted // n_pieces
    left_out = n_elements - n_pieces * length
    return tuple(
        (number * length + (2 * number + 1) * left_out // (2 * n_pieces), length) for number in range(n_pieces)
    )


def _share(
    tensors: Sequence[TensorView], budget: int | None
) -> Iterator[tuple[TensorView, tuple[tuple[int, int], ...]]]:
    """Pieces of each of a group's tensors."""
    total = sum(tensor.n_elements for tensor in tensors)
    for tensor in tensors:
        share = total if budget is None else max(_FEWEST_ELEMENTS, budget * tensor.n_elements // max(1, total))
        yield tensor, spread(tensor.n_elements, share)


def _from_front_to_back(place: Place) -> tuple[float, str, int]:
    # Between embeddings, of depth 0, and the head, of depth 1, one stack after the other.
    return (place.depth, "", 0) if place.stack is None else (0.5, place.stack, place.layer or 0)


def _group_name(place: Place, one_stack: bool) -> str:
    if place.stack is None:
        return "embeddings" if place.depth == 0 else "head"
    return f"{'layer' if one_stack else place.stack} {place.layer}"
