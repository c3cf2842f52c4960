import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arithmetic.linear import weighted_sum

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@st.composite
def blocks_and_coefficients(draw: st.DrawFn) -> tuple[list[torch.Tensor], list[float]]:
    n_elements = draw(st.integers(1, 70))
    count = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    blocks = [
        torch.randn(n_elements, generator=generator, dtype=torch.float64).to(draw(st.sampled_from(DTYPES)))
        for _ in range(count)
    ]
    coefficients = draw(st.lists(st.floats(-3, 3, width=32), min_size=count, max_size=count))
    return blocks, coefficients


@given(blocks_and_coefficients())
@settings(max_examples=60, deadline=None)
def test_the_sum_is_within_the_rounding_of_its_precision(case: tuple[list[torch.Tensor], list[float]]):
    blocks, coefficients = case
    total = weighted_sum(blocks, coefficients)
    # The independent reference: math.fsum of Python floats, which rounds once.
    columns = list(zip(*(block.tolist() for block in blocks), strict=True))
    exact = [math.fsum(c * x for c, x in zip(coefficients, column, strict=True)) for column in columns]
    magnitude = [math.fsum(abs(c * x) for c, x in zip(coefficients, column, strict=True)) for column in columns]
    bound = (len(blocks) + 1) * torch.finfo(total.dtype).eps
    assert all(
        abs(found - expected) <= bound * size + torch.finfo(total.dtype).tiny
        for found, expected, size in zip(total.tolist(), exact, magnitude, strict=True)
    )


def test_sums_are_kept_in_float32_and_in_float64_if_any_block_is():
    half, double = torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float64)
    assert weighted_sum([half, half], [1, 1]).dtype == torch.float32
    assert weighted_sum([half, double], [1, 1]).dtype == torch.float64


def test_many_small_bfloat16_terms_do_not_drift():
    block = torch.full((4,), 0.01, dtype=torch.bfloat16)
    total = weighted_sum([block] * 100, [1.0] * 100)
    # 0.01 in bfloat16 is 0.010009765625; summed in bfloat16 itself this would give 1.047 of it.
    assert total.tolist() == pytest.approx([1.0009765625] * 4, rel=1e-6)


def test_a_share_of_a_bfloat16_block_is_not_rounded_to_bfloat16():
    # By hand: 3 x 0.3 = 0.9, whose nearest bfloat16 is 0.8984375.
    assert weighted_sum([torch.tensor([3.0], dtype=torch.bfloat16)], [0.3]).item() == pytest.approx(0.9, rel=1e-7)


def test_one_block_with_coefficient_one_comes_back_bit_by_bit():
    block = torch.tensor([-0.0, 1e-45, 3.1, -7.0])
    assert weighted_sum([block], [1.0]).view(torch.int32).tolist() == block.view(torch.int32).tolist()


def test_the_sum_goes_to_the_given_tensor_and_leaves_the_blocks_alone():
    first, second, out = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.full((2,), math.nan)
    assert weighted_sum([first, second], [2.0, 0.5], out) is out
    assert out.tolist() == [7.0, 14.0]
    assert (first.tolist(), second.tolist()) == ([1.0, 2.0], [10.0, 20.0])


def test_shapes_that_torch_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"one shape; found \(1,\), \(2,\)"):
        weighted_sum([torch.ones(2), torch.ones(1)], [0.5, 0.5])


@pytest.mark.parametrize("blocks, coefficients", [([], []), ([torch.ones(1)], [0.5, 0.5])])
def test_every_block_needs_its_coefficient(blocks: list[torch.Tensor], coefficients: list[float]):
    with pytest.raises(ValueError, match="one coefficient per block, found"):
        weighted_sum(blocks, coefficients)
