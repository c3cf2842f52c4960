import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.arithmetic.row_ranks import by_rank


def double_ranks(vector: torch.Tensor, length: int) -> NDArray[np.int32]:
    """Twice the rank, a whole number."""
    return by_rank(vector, length, np.arange(-1, 2 * length, dtype=np.int32), np.empty(len(vector), np.int32))


def exact_double_ranks(vector: torch.Tensor, length: int) -> NDArray[np.int64]:
    """The reference: how many are smaller, and how many as large or smaller but one."""
    rows = np.abs(vector.numpy()).astype(np.float32).reshape(-1, length)
    ranks = [np.searchsorted(np.sort(row), row, "left") + np.searchsorted(np.sort(row), row, "right") for row in rows]
    return np.concatenate(ranks) - 1


def normal(n_elements: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n_elements, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [16, 2**40])
@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 2048, 40_000])
def test_ranks_are_those_of_a_sort_and_means_where_equal(length: int, levels: int, dtype: torch.dtype):
    # Sixteenths have equal magnitudes.
    vector = normal(3 * length, torch.float64).mul(levels).round().div(levels).to(dtype)
    assert np.array_equal(double_ranks(vector, length), exact_double_ranks(vector, length))


def test_values_by_hand():
    vector, values = torch.tensor([0.0, -3.0, 1.0, 5.0, -5.0, 0.5]), np.array([0, 10, 15, 20, 25, 30, 0], np.int32)
    assert by_rank(vector, 3, values, np.empty(6, np.int32)).tolist() == [10, 30, 20, 25, 25, 10]


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(1 + 1e-6 * normal(4096), id="magnitudes that hardly differ"),
        pytest.param(torch.cat([torch.full((1,), 1e30), normal(4095)]), id="one that is far larger"),
        pytest.param(torch.exp(20 * normal(4096)), id="many orders of magnitude"),
        pytest.param(1e-40 * normal(4096), id="subnormal"),
        pytest.param(torch.zeros(4096), id="zero"),
        pytest.param(torch.full((4096,), 3.4e38), id="near the largest"),
    ],
)
def test_rows_of_any_kind_are_ranked_exactly(vector: torch.Tensor):
    assert np.array_equal(double_ranks(vector, 2048), exact_double_ranks(vector, 2048))
