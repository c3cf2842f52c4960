"""Descent from one base: does a candidate still point where the base points?

Averaging works between models fine-tuned from one initialisation and gives noise between others, though names and
shapes agree. A fine-tune stays near its base in every matrix; two trainings from different initialisations are
at right angles. A fixed sample of a few megabytes per model tells them apart.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES, TensorView

# Median over the matrices of the distance between directions (`direction_distance`). Measured:
#   0.01        three fine-tunes of MiniLM
#   0.23-0.33   the experts of the bundled demo (bf16, trained hard from their base)
#   0.06-0.42   260 K Llama on a made-up language: learning rates 1e-4 to 3e-3, 400 to 1500 steps
#   1.06        a model and the random initialisation that it was trained from scratch from
#   1.41        everything unrelated: two random initialisations of one config (1.38-1.44 over all matrices), random
#               and trained, two trainings from two initialisations on the same data, two stories models by two people
# Unrelated models are at right angles, sqrt(2), and hardly spread; 1.0 is an angle of 60 degrees.
UNRELATED_DISTANCE = 1.0
# Farther than any fine-tune that was measured: merges may still work, but a person should look.
FAR_DISTANCE = 0.6

_MAX_MATRICES = 24
_BLOCKS_PER_MATRIX = 4
_BLOCK_ELEMENTS = 16 * 1024
# In fewer numbers than these, two random directions may lie close by chance.
_MIN_ELEMENTS = 1024

_READ_ELEMENTS = 1024 * 1024

_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_EXPONENTS = {
    "F64": ("<u8", np.uint64(0x7FF << 52)),
    "F32": ("<u4", np.uint32(0xFF << 23)),
    "F16": ("<u2", np.uint16(0x1F << 10)),
    "BF16": ("<u2", np.uint16(0xFF << 7)),
}
"""Dtype to the integers that its numbers are read as, and the bits of the exponent in them."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What the sample says about one candidate."""

    distance: float | None
    """Median over the sampled matrices of `direction_distance`: 0 for the base, about 1.41 for an unrelated model.
    None when the two share no matrix that could be compared."""
    non_finite: tuple[str, ...] = ()
    """Sampled tensors of the candidate with NaN or infinity."""


def choose_sample(views: Mapping[str, TensorView]) -> list[TensorView]:
    """The matrices that are compared: floating, large enough, spread evenly over the depth of the model.

    Vectors are left out: norm weights are near one in every model and hide the difference.
    """
    floating = [view for view in views.values() if view.dtype in FLOAT_DTYPES and len(view.shape) >= 2]
    matrices = [view for view in floating if view.n_elements >= _MIN_ELEMENTS] or floating
    # layers.2 comes before layers.10, so that even steps are even in depth.
    matrices.sort(key=lambda view: [(int(part) if part.isdigit() else -1, part) for part in _digits(view.name)])
    if len(matrices) <= _MAX_MATRICES:
        return matrices
    steps = np.linspace(0, len(matrices) - 1, _MAX_MATRICES).round().astype(int)
    return [matrices[step] for step in steps]


def compare_with_base(
    sample: Sequence[TensorView], base_blocks: Mapping[str, FloatArray], candidate: Mapping[str, TensorView]
) -> Ancestry:
    """Measure a candidate against the base's blocks (`read_blocks` of every view of the sample).

    Matrices that the candidate lacks or has in another shape are passed over: they are another check's finding.
    """
    distances: list[float] = []
    non_finite: list[str] = []
    for view in comparable_views(sample, candidate):
        blocks = read_blocks(view)
        if not np.isfinite(blocks).all():
            non_finite.append(view.name)
            continue
        distance = direction_distance(base_blocks[view.name], blocks)
        if distance is not None:
            distances.append(distance)
    return Ancestry(median(distances) if distances else None, tuple(non_finite))


def comparable_views(sample: Sequence[TensorView], candidate: Mapping[str, TensorView]) -> list[TensorView]:
    """The candidate's tensors that can be held against the base's sample."""
    pairs = ((base_view, candidate.get(base_view.name)) for base_view in sample)
    return [view for base_view, view in pairs if view and view.shape == base_view.shape and view.dtype in FLOAT_DTYPES]


def direction_distance(base: FloatArray, candidate: FloatArray) -> float | None:
    """Distance between the two after both are brought to length one: sqrt(2 - 2 cos), from 0 to 2.

    For small changes it is the relative distance ||candidate - base|| / ||base||. Unlike that one it does not depend on
    lengths: three times the base is no stranger (0 here, 2.0 there), and a model with small weights is no relative of
    one with large weights (1.41 here, but 1.01 there for a random model against a trained one, and 1.07 for two
    models trained apart). None if either is zero or not finite, since zero has no direction.
    """
    base_length, candidate_length = float(np.linalg.norm(base)), float(np.linalg.norm(candidate))
    if not (0 < base_length < np.inf and 0 < candidate_length < np.inf):
        return None
    # The difference of unit vectors keeps its digits where 1 - cos loses them all.
    return float(np.linalg.norm(base / base_length - candidate / candidate_length))


def block_ranges(view: TensorView) -> list[tuple[int, int]]:
    """Where in its file the sampled numbers of a tensor lie: first byte and number of bytes of each block.

    The blocks stand at fixed, evenly spaced positions; a small tensor is one block.
    """
    size = DTYPE_BYTES[view.dtype]
    if view.n_elements <= _BLOCKS_PER_MATRIX * _BLOCK_ELEMENTS:
        return [(view.start, view.n_bytes)]
    last = view.n_elements - _BLOCK_ELEMENTS
    starts = [last * k // (_BLOCKS_PER_MATRIX - 1) for k in range(_BLOCKS_PER_MATRIX)]
    return [(view.start + start * size, _BLOCK_ELEMENTS * size) for start in starts]


def read_blocks(view: TensorView) -> FloatArray:
    """The sampled numbers of a tensor, those of `block_ranges`."""
    with view.file.open("rb") as file:
        blocks = [os.pread(file.fileno(), n_bytes, start) for start, n_bytes in block_ranges(view)]
    return np.concatenate([_decode(block, view.dtype) for block in blocks])


def is_finite(view: TensorView) -> bool:
    """Whether a tensor holds neither NaN nor infinity; all of its numbers are read, a few megabytes at a time."""
    kind, exponent = _EXPONENTS[view.dtype]
    size = DTYPE_BYTES[view.dtype]
    with view.file.open("rb") as file:
        for start in range(0, view.n_bytes, _READ_ELEMENTS * size):
            length = min(_READ_ELEMENTS * size, view.n_bytes - start)
            bits = np.frombuffer(os.pread(file.fileno(), length, view.start + start), dtype=kind)
            # NaN and infinity are the numbers with an exponent of ones.
            if ((bits & exponent) == exponent).any():
                return False
    return True


def _decode(data: bytes, dtype: str) -> FloatArray:
    numbers = np.frombuffer(data, dtype=_NUMPY_DTYPES[dtype])
    if dtype == "BF16":
        # numpy has no bfloat16; it is the upper half of a float32.
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float64)


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name)
