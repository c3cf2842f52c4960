"""Float64 references for methods that thin out task vectors: whole tensors, sorted, written from the papers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.float64]


def fine_tuned(
    shape: Sequence[int], n_candidates: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """A base and models that were trained a little from it; in bfloat16 many changes are of equal size."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(tuple(shape), generator=generator).mul(0.02)
    changes = [torch.randn(tuple(shape), generator=generator).mul(0.001) for _ in range(n_candidates)]
    return base.to(dtype), [(base + change).to(dtype) for change in changes]


def task_vectors(base: Tensor, candidates: Sequence[Tensor]) -> list[Vector]:
    """Flat differences: as they are in float64 if an input is, else rounded to float32, where the methods rank them."""
    wide = torch.float64 in {base.dtype, *(candidate.dtype for candidate in candidates)}
    dtype = torch.float64 if wide else torch.float32
    return [(candidate.to(dtype) - base.to(dtype)).double().reshape(-1).numpy() for candidate in candidates]


def largest(vector: Vector, n_kept: int) -> NDArray[np.bool_]:
    """Where the elements of largest magnitude are; of equal ones those that come first."""
    mask = np.zeros(len(vector), np.bool_)
    mask[np.argsort(-np.abs(vector).astype(np.float32), kind="stable")[:n_kept]] = True
    return mask


def elected(vectors: Sequence[Vector], weights: Sequence[float], normalize: bool) -> Vector:
    """TIES, sections 3.2 and 3.3: the sign of the weighted sum; the (weighted) mean of what has it."""
    weighted = np.stack([vector * weight for vector, weight in zip(vectors, weights, strict=True)])
    agrees = (np.sign(weighted) == np.sign(weighted.sum(0))) & (weighted != 0)
    total = (weighted * agrees).sum(0)
    if not normalize:
        return total
    divisor = (np.abs(np.array(weights))[:, None] * agrees).sum(0)
    return np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)


def merged(base: Tensor, change: Vector, scale: float = 1.0) -> Tensor:
    """base + scale x change in float64."""
    return base.double() + scale * torch.from_numpy(change).reshape(base.shape)
