import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.arithmetic import native_counting
from tasks.arithmetic.library import load_library
from tasks.arithmetic.selection import LargestMagnitudes


@pytest.fixture(params=["in C", "by numba"], autouse=True)
def counting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to count."""
    if request.param == "by numba":
        monkeypatch.setattr(native_counting, "operands", lambda tensors: None)
    elif load_library() is None and shutil.which("cc") is None:
        pytest.skip("there is no C compiler, so numba counts")


def observe(largest: LargestMagnitudes, vector: torch.Tensor, block: int) -> list[int]:
    """Show a vector in all passes; how many elements each needs."""
    extents: list[int] = []
    for number in range(largest.N_PASSES):
        extents.append(largest.extent(number))
        for start in range(0, extents[-1], block):
            part = vector[start : min(start + block, extents[-1])]
            largest.observe(number, part, torch.zeros_like(part))
    return extents


def select(vector: torch.Tensor, counts: list[int], block: int) -> list[torch.Tensor]:
    """What is kept of a vector for each of the counts."""
    largest = LargestMagnitudes(counts, len(vector))
    observe(largest, vector, block)
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
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    largest = LargestMagnitudes([1000], 5000)
    for number in range(largest.N_PASSES):
        largest.observe(number, tensor, base)
    vector = tensor.float() - base.float()
    expected = select_by_sorting(vector, 1000)
    largest.keep(vector)
    assert torch.equal(vector, expected)


@pytest.mark.parametrize("n_kept", [[200_000], [300_000, 100_000]])
def test_a_vector_that_is_alike_all_over_needs_a_second_look_at_its_first_blocks_only(n_kept: list[int]):
    vector = torch.randn(800_000, generator=torch.Generator().manual_seed(3))
    first, second, *rest = observe(LargestMagnitudes(n_kept, len(vector)), vector, block=50_000)
    assert (first, rest) == (800_000, [0, 0]) and second <= 400_000


def test_a_sample_that_misleads_costs_two_more_looks():
    # What is sampled after the first block is half as large as the rest, which moves the true limit out of the window.
    vector = torch.randn(400_000, generator=torch.Generator().manual_seed(3)).mul(4).round().add(0.5)
    blocks = vector.split(50_000)
    for block in blocks[1:]:
        for number, tile in enumerate(block.split(1024)):
            if number % 8 != number // 8 * 5 % 8:
                tile.mul_(2)
    largest = LargestMagnitudes([100_000], len(vector))
    assert observe(largest, vector, block=50_000) == [400_000, 50_000, 400_000, 400_000]
    kept = vector.clone()
    largest.keep(kept)
    assert torch.equal(kept, select_by_sorting(vector, 100_000))


def test_elements_are_kept_only_of_a_vector_that_was_seen():
    with pytest.raises(ValueError, match="observed up to the extent of every pass"):
        LargestMagnitudes([1], 2).limit()


@pytest.mark.parametrize("n_kept", [1, 300, 9000, 50_000, 99_999])
@pytest.mark.parametrize(
    "growth",
    [
        torch.linspace(1, 3, 100_000),
        torch.linspace(1, 1e-3, 100_000),
        torch.cat([torch.zeros(90_000), torch.ones(10_000)]),
    ],
    ids=["growing", "shrinking", "zeros first"],
)
def test_a_vector_that_changes_on_the_way_is_selected_like_a_sorted_one(n_kept: int, growth: torch.Tensor):
    vector = torch.randn(100_000, generator=torch.Generator().manual_seed(4)) * growth
    counts = [n_kept, min(100_000, n_kept + 7000)]
    for found, count in zip(select(vector, counts, block=3000), counts, strict=True):
        assert torch.equal(found, select_by_sorting(vector, count))


def test_second_looks_in_other_blocks_than_the_first_count_nothing_twice():
    vector = torch.randn(50_000, generator=torch.Generator().manual_seed(5))
    largest = LargestMagnitudes([20_000], len(vector))
    for number, block in [(0, 5000), (1, 1700), (2, 900), (3, 50_000)]:
        for part in vector.split(block):
            largest.observe(number, part, torch.zeros_like(part))
    kept = vector.clone()
    largest.keep(kept)
    assert torch.equal(kept, select_by_sorting(vector, 20_000))


def test_blocks_that_c_does_not_know_are_not_counted_there():
    wide, one = torch.zeros(4, dtype=torch.float64), torch.zeros(4)
    assert not native_counting.count_magnitudes([native_counting.Counting(wide)], one)
    assert not native_counting.count_magnitudes([native_counting.Counting(one)], one[:3])
