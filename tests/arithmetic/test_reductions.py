import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.arithmetic.reductions import ColumnDotProducts, in_float64, row_dot_products


def random(n_elements: int, seed: int) -> Tensor:
    return torch.randn(n_elements, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows, columns", [(1, 5), (700, 2), (257, 3), (64, 129), (3, 9000), (40_000, 2)])
def test_columns_are_added_from_the_top_down_wherever_blocks_are_cut(rows: int, columns: int):
    x, y = random(rows * columns, 1), random(rows * columns, 2)
    expected = np.zeros(columns)
    for left, right in zip(*(each.double().numpy().reshape(rows, columns) for each in (x, y)), strict=True):
        expected += left * right
    for block in (rows * columns, 1 + rows * columns // 7, 1 + rows * columns // 50):
        products = ColumnDotProducts(2, columns)
        for first in range(0, rows * columns, block):
            products.add(first, in_float64([x[first : first + block], y[first : first + block]]))
        assert np.array_equal(products.dot(1, 0), expected), block


@pytest.mark.parametrize("columns", [1, 7, 8, 128, 1000, 9001])
def test_the_product_of_a_row_does_not_depend_on_the_rows_beside_it(columns: int):
    x, y = (random(12 * columns, seed).double().numpy().reshape(12, columns) for seed in (1, 2))
    alone = [float(np.add.reduce(left * right)) for left, right in zip(x, y, strict=True)]
    assert row_dot_products(x, y).tolist() == alone
    assert [row_dot_products(x[i : i + 1], y[i : i + 1]).item() for i in range(12)] == alone


def test_a_single_column_is_refused_for_its_sum_would_depend_on_blocks():
    with pytest.raises(ValueError, match="expected 2 columns or more; found 1"):
        ColumnDotProducts(2, 1)
