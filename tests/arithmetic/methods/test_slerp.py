import numpy as np
import pytest
import torch
from formulas import make, run
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.reductions import REDUCTION_BLOCK

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
RAGGED = (3, REDUCTION_BLOCK + 4001)


def slerp(t: float, first: Tensor, second: Tensor, block: int = 4 * REDUCTION_BLOCK) -> Tensor:
    return run(make("slerp", first.shape, [1.0, 1.0], {"t": t}), None, [first, second], block)


def reference(t: float, first: Tensor, second: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shoemake's formula in float64, and the magnitude |c x| + |d y| that the error is measured by."""
    x, y = (each.double().numpy() for each in (first, second))
    angle = np.arccos(np.sum(x / np.linalg.norm(x) * (y / np.linalg.norm(y))))
    c, d = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    return c * x + d * y, np.abs(c * x) + np.abs(d * y)


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("first_dtype", DTYPES)
@pytest.mark.parametrize("second_dtype", [torch.bfloat16, torch.float64])
def test_the_result_is_shoemakes_formula_within_two_roundings(first_dtype: torch.dtype, second_dtype: torch.dtype):
    first, second = random(RAGGED, 1, first_dtype), 0.5 * random(RAGGED, 2, second_dtype)
    found = slerp(0.3, first, second)
    expected, size = reference(0.3, first, second)
    assert found.dtype == (torch.float64 if torch.float64 in (first_dtype, second_dtype) else torch.float32)
    # numpy's own sums err by some 1e-15, which float64 shows.
    bound = 2 * torch.finfo(found.dtype).eps + 1e-14
    assert (np.abs(found.numpy() - expected) <= bound * size).all()


@pytest.mark.parametrize("t", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("closeness", [0.1, 1.0, -3.0])
def test_all_angles_and_ways_follow_the_formula(t: float, closeness: float):
    first = random((100,), 1)
    second = closeness * first + random((100,), 2)
    expected, size = reference(t, first, second)
    assert (np.abs(slerp(t, first, second).numpy() - expected) <= 2 * 2.0**-23 * size).all()


def test_halfway_between_two_axes_by_hand():
    # sin 45 / sin 90 = 0.70711 of each.
    found = slerp(0.5, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    assert found.tolist() == pytest.approx([0.70711, 1.41421], abs=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_size_of_blocks_changes_no_bit(dtype: torch.dtype):
    first, second = random(RAGGED, 1, dtype), random(RAGGED, 2, dtype)
    expected = slerp(0.7, first, second)
    assert all(torch.equal(slerp(0.7, first, second, n * REDUCTION_BLOCK), expected) for n in (1, 2, 3))


@pytest.mark.parametrize("t, end", [(0.0, 0), (1.0, 1)])
def test_an_end_is_copied_bit_by_bit_without_a_pass(t: float, end: int):
    ends = [torch.tensor([-0.0, 1e-45, 3.1]), torch.tensor([1.0, -0.0, 7.0])]
    formula = make("slerp", (3,), [1.0, 1.0], {"t": t})
    assert formula.n_passes == 0
    assert run(formula, None, ends).view(torch.int32).tolist() == ends[end].view(torch.int32).tolist()


def test_one_candidate_is_reached_from_the_base():
    base, other = random((50,), 1), random((50,), 2)
    assert torch.equal(run(make("slerp", (50,), [1.0], {"t": 0.2}), base, [other]), slerp(0.2, base, other))


def test_of_two_candidates_the_base_is_no_part():
    base, first, second = (random((50,), seed) for seed in range(3))
    found = run(make("slerp", (50,), [1.0, 1.0], {"t": 0.2}), base, [first, second])
    assert torch.equal(found, slerp(0.2, first, second))


def test_zero_equal_and_opposite_tensors_lie_on_a_line():
    x, zero = torch.tensor([2.0, -4.0]), torch.zeros(2)
    assert slerp(0.25, zero, x).tolist() == [0.5, -1.0]
    assert slerp(0.25, x, zero).tolist() == [1.5, -3.0]
    assert slerp(0.25, zero, zero).tolist() == [0.0, 0.0]
    assert slerp(0.25, x, x).tolist() == [2.0, -4.0]
    # Opposite: 0.75 x - 0.25 x.
    assert slerp(0.25, x, -x).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_number_is_interpolated_straight(shape: tuple[int, ...]):
    assert slerp(0.25, torch.full(shape, 1.0), torch.full(shape, 3.0)).tolist() == torch.full(shape, 1.5).tolist()


def test_one_candidate_needs_a_base():
    with pytest.raises(ValueError, match="slerp with one candidate needs the base's tensors"):
        run(make("slerp", (2,), [1.0]), None, [torch.ones(2)])
