from itertools import combinations

import numpy as np
import pytest
import torch
from formulas import make, run
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.methods.model_stock import stock_ratio
from tasks.arithmetic.reductions import REDUCTION_BLOCK

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def model_stock(
    base: Tensor, candidates: list[Tensor], by_row: bool = False, block: int = 4 * REDUCTION_BLOCK
) -> Tensor:
    return run(
        make("model_stock", base.shape, [1.0] * len(candidates), {"filter_wise": by_row}), base, candidates, block
    )


def reference(base: Tensor, candidates: list[Tensor], axis: int | None) -> NDArray[np.float64]:
    """t x mean + (1 - t) x base in float64, t = N cos / (1 + (N - 1) cos)."""
    start = base.double().numpy()
    models = [each.double().numpy() for each in candidates]
    units = [(m - start) / np.sqrt(np.sum((m - start) ** 2, axis=axis, keepdims=True)) for m in models]
    cosines = [np.sum(left * right, axis=axis, keepdims=True) for left, right in combinations(units, 2)]
    cosine, n = sum(cosines) / len(cosines), len(models)
    t = n * cosine / (1 + (n - 1) * cosine)
    return t * sum(models) / n + (1 - t) * start


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def fine_tunes(base: Tensor, n: int, dtype: torch.dtype) -> list[Tensor]:
    """Models that went the same way from the base, and each its own a little."""
    way = 1 + random(tuple(base.shape), 77, torch.float64).abs()
    return [(base.double() + way + 0.5 * random(tuple(base.shape), seed, torch.float64)).to(dtype) for seed in range(n)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("by_row", [False, True])
def test_the_result_is_the_papers_formula(dtype: torch.dtype, n: int, by_row: bool):
    base = random((6, 7, 43), 9, torch.bfloat16)
    candidates = fine_tunes(base, n, dtype)
    found = model_stock(base, candidates, by_row)
    expected = reference(base, candidates, -1 if by_row else None)
    # Two roundings at the size of the terms, of which the base's and the models' are the largest.
    size = base.double().abs() + sum(each.double().abs() for each in candidates)
    bound = (2 * torch.finfo(found.dtype).eps + 1e-14) * size.numpy()
    assert (np.abs(found.numpy() - expected) <= bound).all()


@pytest.mark.parametrize("by_row", [False, True])
def test_the_size_of_blocks_changes_no_bit(by_row: bool):
    base = random((301, 777), 9)
    candidates = fine_tunes(base, 3, torch.bfloat16)
    expected = model_stock(base, candidates, by_row)
    assert all(torch.equal(model_stock(base, candidates, by_row, n * REDUCTION_BLOCK), expected) for n in (1, 2))


def test_two_fine_tunes_at_sixty_degrees_by_hand():
    base = torch.tensor([1.0, 1.0])
    candidates = [torch.tensor([2.0, 1.0]), torch.tensor([1.5, 1.0 + 3**0.5 / 2])]
    # cos 60 = 0.5, t = 2 x 0.5 / 1.5 = 2/3 of the mean (0.75, 0.43301) away from the base.
    assert model_stock(base, candidates).tolist() == pytest.approx([1.5, 1.288675], abs=1e-6)


@pytest.mark.parametrize(
    "cosine, n, expected", [(1.0, 2, 1.0), (0.5, 3, 0.75), (0.0, 2, 0.0), (-0.2, 2, 0.0), (-0.5, 3, 0.0)]
)
def test_the_ratio_of_an_angle_by_hand(cosine: float, n: int, expected: float):
    assert stock_ratio(cosine, n) == expected


@pytest.mark.parametrize("by_row", [False, True])
def test_equal_fine_tunes_are_the_result_and_opposite_ones_leave_the_base(by_row: bool):
    base, step = torch.tensor([[1.0, -0.0]]), torch.tensor([[0.5, 2.0]])
    assert model_stock(base, [base + step, base + step], by_row).tolist() == [[1.5, 2.0]]
    assert model_stock(base, [base + step, base - step], by_row).tolist() == [[1.0, 0.0]]
    assert model_stock(base, [base, base], by_row).tolist() == [[1.0, 0.0]]


def test_a_fine_tune_equal_to_the_base_shares_no_angle():
    base, step = torch.zeros(2), torch.tensor([3.0, 3.0])
    # Cosines 1, 0 and 0: mean 1/3, t = 1 / (5/3) = 0.6 of the mean (2, 2).
    assert model_stock(base, [step, step, base]).tolist() == pytest.approx([1.2, 1.2])


def test_where_nothing_counts_the_base_is_copied_bit_by_bit():
    base = torch.tensor([-0.0, 1e-45, 3.1])
    step = torch.tensor([1.0, 0.0, 0.0])
    found = model_stock(base, [base + step, base - step])
    assert found.view(torch.int32).tolist() == base.view(torch.int32).tolist()


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_number_is_merged(shape: tuple[int, ...], by_row: bool):
    # Both task vectors point the same way: the mean.
    found = model_stock(torch.full(shape, 1.0), [torch.full(shape, 2.0), torch.full(shape, 4.0)], by_row)
    assert found.tolist() == torch.full(shape, 3.0).tolist()


@pytest.mark.parametrize("by_row", [False, True])
def test_there_must_be_a_base(by_row: bool):
    formula = make("model_stock", (2, 2), [1.0, 1.0], {"filter_wise": by_row})
    with pytest.raises(ValueError, match="model_stock needs the base's tensors"):
        run(formula, None, [torch.ones(2, 2)] * 2)
