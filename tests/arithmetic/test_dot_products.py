import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.reductions import REDUCTION_BLOCK

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
N_ELEMENTS = 3 * REDUCTION_BLOCK + 12_345


def random(n_elements: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_elements, generator=generator, dtype=torch.float64).to(dtype)


def sum_products(left: Tensor, right: Tensor) -> tuple[float, float]:
    """The sum rounded once, and the bound of the error that the docstring promises."""
    products = (left.double() * right.double()).tolist()
    return math.fsum(products), 1100 * 1.2e-16 * math.fsum(map(abs, products))


def dots(vectors: list[Tensor], block: int, origin: Tensor | None = None) -> list[float]:
    products = DotProducts(len(vectors))
    for first in range(0, len(vectors[0]), block):
        part = slice(first, first + block)
        products.add([vector[part] for vector in vectors], None if origin is None else origin[part])
    return [products.dot(left, right) for left in range(len(vectors)) for right in range(left, len(vectors))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_inner_products_are_those_of_exact_sums(dtype: torch.dtype):
    x, y = random(N_ELEMENTS, 1, dtype), random(N_ELEMENTS, 2, torch.float32)
    for found, pair in zip(dots([x, y], 2 * REDUCTION_BLOCK), [(x, x), (x, y), (y, y)], strict=True):
        expected, bound = sum_products(*pair)
        assert abs(found - expected) <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_origin", [False, True])
def test_the_size_of_blocks_changes_no_bit(dtype: torch.dtype, with_origin: bool):
    vectors = [random(N_ELEMENTS, seed, dtype) for seed in range(2)]
    origin = random(N_ELEMENTS, 9, torch.bfloat16) if with_origin else None
    expected = dots(vectors, 4 * REDUCTION_BLOCK, origin)
    blocks = (REDUCTION_BLOCK, 2 * REDUCTION_BLOCK, 50_000, REDUCTION_BLOCK + 1, 9999)
    assert all(dots(vectors, block, origin) == expected for block in blocks)


@pytest.mark.parametrize("block", [1, 7, 40_000])
def test_blocks_of_a_tensor_smaller_than_one_change_no_bit(block: int):
    n_elements = min(50_000, 100 * block)
    vectors = [random(n_elements, seed) for seed in range(2)]
    assert dots(vectors, block) == dots(vectors, n_elements)


def test_differences_from_an_origin_are_taken_in_float64():
    x, y, origin = (random(1000, seed, torch.bfloat16) for seed in range(3))
    expected, bound = sum_products(x.double() - origin.double(), y.double() - origin.double())
    assert abs(dots([x, y], REDUCTION_BLOCK, origin)[1] - expected) <= bound


def test_a_cancelling_sum_of_bfloat16_products_is_exact():
    # By hand: 2^40 - 2^40 + 1; in float32 2^40 + 1 is 2^40.
    x = torch.tensor([2.0**20, 2.0**20, 1.0], dtype=torch.bfloat16)
    y = torch.tensor([2.0**20, -(2.0**20), 1.0], dtype=torch.bfloat16)
    assert dots([x, y], REDUCTION_BLOCK)[1] == 1.0


def test_the_index_of_vectors_may_come_in_any_order():
    products = DotProducts(2)
    products.add([torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0])])
    assert (products.dot(0, 1), products.dot(1, 0), products.norm(0)) == (7.0, 7.0, 5.0)


def test_vectors_are_left_alone_and_nothing_seen_sums_to_zero():
    x, origin = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    products = DotProducts(1)
    assert products.dot(0, 0) == 0.0
    products.add([x], origin)
    assert (x.tolist(), origin.tolist(), products.dot(0, 0)) == ([3.0, 4.0], [1.0, 1.0], 13.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_additions_is_the_documented_one(dtype: torch.dtype):
    x, y = random(N_ELEMENTS, 1, dtype), random(N_ELEMENTS, 2, dtype)
    total: list[float] = []
    for left, right in zip(x.double().split(REDUCTION_BLOCK), y.double().split(REDUCTION_BLOCK), strict=True):
        lanes = torch.zeros(64, dtype=torch.float64)
        for products in (left * right).split(64):
            lanes[: len(products)] += products
        total += lanes.tolist() if len(left) < REDUCTION_BLOCK else [float(np.add.accumulate(lanes.numpy())[-1])]
    assert dots([x, y], REDUCTION_BLOCK)[1] == math.fsum(total)
