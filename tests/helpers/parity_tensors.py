"""Small tensors to merge, and how merged ones are summarised; the same wherever there are numpy and torch."""

import numpy as np
import torch
from torch import Tensor

SHAPES = {"matrix": (24, 40), "vector": (33,)}
N_CANDIDATES = 3


def make_inputs(name: str) -> tuple[Tensor, list[Tensor]]:
    """A float32 base and candidates that moved from it in one direction, each with noise of its own."""
    generator = np.random.default_rng([7, *SHAPES[name]])
    base, way = generator.standard_normal((2, *SHAPES[name]))
    noise = generator.standard_normal((N_CANDIDATES, *SHAPES[name]))
    candidates = base + 0.2 * way + 0.2 * noise
    return torch.tensor(base, dtype=torch.float32), [torch.tensor(each, dtype=torch.float32) for each in candidates]


def summarise(merged: Tensor) -> dict[str, list[float]]:
    """The first elements, and sums that every element enters with another factor."""
    flat = merged.double().flatten().numpy()
    ramp = np.linspace(0.0, 1.0, len(flat))
    return {
        "first": flat[:8].tolist(),
        "sums": [float(np.sqrt(np.sum(flat**2))), float(np.sum(flat * ramp)), float(np.sum(flat * ramp**2))],
    }
