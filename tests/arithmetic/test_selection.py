import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arithmetic.compiled import as_elements
from tasks.arithmetic.selection import LargestMagnitudes


def select(vector: torch.Tensor, counts: list[int], block: int) -> list[torch.Tensor]:
    """What is kept of a vector for each of the counts."""
    largest = LargestMagnitudes(counts)
    for number in range(2):
        for part in vector.split(block):
            largest.observe(number, part.numpy(), np.zeros_like(part.numpy()))
    kept = [vector.clone() for _ in counts]
    for cut, whole in enumerate(kept):
        for part in whole.split(block):
            largest.keep(part, cut)
    return kept


def select_by_sorting(vector: torch.Tensor, n_kept: int) -> torch.Tensor:
    """The reference: a stable sort of all magnitudes, so that equal ones stay in order of position."""
    order = np.argsort(-np.abs(vector.numpy()), kind="stable")
    kept = torch.zeros_like(vector)
    kept[order[:n_kept]] = vector[order[:n_kept]]
    return kept


@given(
    seed=st.integers(0, 2**32),
    n_elements=st.integers(1, 300),
    share=st.floats(0, 1),
    block=st.integers(1, 300),
    levels=st.sampled_from([1, 2, 20, 10**9]),
    scale=st.sampled_from([1e-42, 1e-30, 1.0, 1e30]),
)
@settings(max_examples=100, deadline=None)
def test_exactly_the_largest_are_kept_and_equal_ones_by_position(
    seed: int, n_elements: int, share: float, block: int, levels: int, scale: float
):
    generator = np.random.default_rng(seed)
    numbers = np.round(generator.normal(0, 1, n_elements) * levels) / levels * scale
    vector = torch.from_numpy(numbers.astype(np.float32))
    n_kept = max(1, int(share * n_elements))
    assert torch.equal(select(vector, [n_kept], block)[0], select_by_sorting(vector, n_kept))


@pytest.mark.parametrize("n_kept", [1, 70_000, 199_999, 200_000, 200_001])
def test_a_vector_of_several_blocks_is_selected_like_a_sorted_one(n_kept: int):
    vector = torch.randn(200_001, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    expected = select_by_sorting(vector, n_kept)
    for block in (65_536, 262_144):
        assert torch.equal(select(vector, [n_kept], block)[0], expected)


def test_several_counts_share_their_passes():
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(2)).mul(4).round()
    few, many = select(vector, [30, 700], block=64)
    assert torch.equal(few, select_by_sorting(vector, 30))
    assert torch.equal(many, select_by_sorting(vector, 700))


def test_patterns_that_differ_in_the_last_bit_are_told_apart():
    one = torch.tensor(1.0)
    above = torch.nextafter(one, torch.tensor(2.0))
    below = torch.nextafter(one, torch.tensor(0.0))
    vector = torch.stack([one, above, -below, -one])
    assert select(vector, [2], block=4)[0].tolist() == [1.0, above.item(), 0.0, 0.0]


def test_of_many_zeros_nothing_else_is_lost():
    vector = torch.tensor([0.0, -3.0, 0.0, 1e-45, 0.0])
    assert torch.equal(select(vector, [4], block=2)[0], vector)


def test_float64_is_ranked_by_its_value_in_float32_and_kept_in_full():
    close = 1 + 1e-12
    vector = torch.tensor([1.0, close, 0.5, -2.0], dtype=torch.float64)
    # 1 and close are equal in float32, so the first of them is kept.
    assert select(vector, [2], block=4)[0].tolist() == [1.0, 0.0, 0.0, -2.0]
    assert select(vector, [3], block=4)[0].tolist() == [1.0, close, 0.0, -2.0]


def test_differences_of_bfloat16_bits_are_counted_like_numbers():
    base, tensor = (torch.randn(5000, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in (1, 2))
    largest = LargestMagnitudes([1000])
    for number in range(2):
        elements, origin = as_elements([tensor, base], torch.float32)
        assert elements.dtype == np.uint16
        largest.observe(number, elements, origin)
    vector = tensor.float() - base.float()
    expected = select_by_sorting(vector, 1000)
    largest.keep(vector)
    assert torch.equal(vector, expected)
