"""What formulas with sums give on some random tensors, so that two processes can compare; also a program."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from formulas import make, run
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.method import Number
from tasks.arithmetic.reductions import REDUCTION_BLOCK, ColumnDotProducts, in_float64, row_dot_products

SHAPE = (311, 1013)
MERGES: Mapping[str, tuple[str, Mapping[str, Number]]] = {
    "slerp": ("slerp", {"t": 0.3}),
    "nuslerp by tensor": ("nuslerp", {}),
    "model_stock by tensor": ("model_stock", {}),
    # Computed in float64 by numpy and rounded once.
    "exact: nuslerp by row": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "exact: nuslerp by column": ("nuslerp", {"nuslerp_flatten": False}),
    "exact: model_stock by row": ("model_stock", {"filter_wise": True}),
}


def compute() -> dict[str, NDArray[np.float64]]:
    """Sums and merged tensors by name, which begins with "exact" where it must be the same on every processor."""
    # torch's own random numbers differ with the processor.
    base, *models = (
        torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE)).to(torch.bfloat16) for seed in range(3)
    )
    found = {f"exact: sums of {name}": sums for name, sums in _sums(base, models).items()}
    for name, (method, parameters) in MERGES.items():
        merged = run(make(method, SHAPE, [1.0, 3.0], parameters), base, models, REDUCTION_BLOCK)
        found[name] = merged.double().numpy()
    for method in ("ties", "dare_ties"):
        formula = make(method, SHAPE, [1.0, 3.0], None, [{"density": 0.3}, {"density": 0.4}])
        found[f"exact: {method}"] = run(formula, base, models, REDUCTION_BLOCK).double().numpy()
    return found


def _sums(base: Tensor, models: Sequence[Tensor]) -> dict[str, NDArray[np.float64]]:
    plain, differences, columns = DotProducts(2), DotProducts(2), ColumnDotProducts(2, SHAPE[1])
    flat = [model.reshape(-1).float() for model in models]
    plain.add(flat)
    differences.add(flat, base.reshape(-1))
    wide = in_float64(flat)
    columns.add(0, wide)
    return {
        "tensors": np.array([plain.dot(0, 0), plain.dot(0, 1), plain.dot(1, 1)]),
        "differences": np.array([differences.dot(0, 0), differences.dot(0, 1), differences.dot(1, 1)]),
        "rows": row_dot_products(wide[0].reshape(SHAPE), wide[1].reshape(SHAPE)),
        "columns": columns.dot(0, 1),
    }


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **compute())  # pyright: ignore[reportArgumentType]
