import numpy as np
import pytest
import torch
from formulas import make, run
from numpy.typing import NDArray
from torch import Tensor

from tasks.arithmetic.reductions import REDUCTION_BLOCK

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BY_TENSOR = {}
BY_ROW = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
BY_COLUMN = {"nuslerp_flatten": False}
AXES = {"tensor": (BY_TENSOR, None), "row": (BY_ROW, -1), "column": (BY_COLUMN, 0)}


def nuslerp(
    weights: list[float],
    candidates: list[Tensor],
    base: Tensor | None = None,
    parameters: dict[str, bool] = BY_TENSOR,
    block: int = 4 * REDUCTION_BLOCK,
) -> Tensor:
    return run(make("nuslerp", candidates[0].shape, weights, parameters), base, candidates, block)


def reference(
    t: float, first: Tensor, second: Tensor, base: Tensor | None, axis: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shoemake's formula in float64 along an axis, and the magnitude of its terms."""
    start = np.zeros(first.shape) if base is None else base.double().numpy()
    x, y = (each.double().numpy() - start for each in (first, second))
    lengths = [np.sqrt(np.sum(each * each, axis=axis, keepdims=True)) for each in (x, y)]
    angle = np.arccos(np.sum(x * y, axis=axis, keepdims=True) / lengths[0] / lengths[1])
    c, d = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    return start + c * x + d * y, np.abs(start) + np.abs(c * x) + np.abs(d * y)


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("axis", AXES)
def test_the_result_is_the_formula_within_two_roundings(dtype: torch.dtype, with_base: bool, axis: str):
    shape = (5, 9, 31)
    base = random(shape, 3, torch.bfloat16) if with_base else None
    first, second = random(shape, 1, dtype), 0.1 * random(shape, 2, dtype)
    parameters, dimension = AXES[axis]
    found = nuslerp([3.0, 1.0], [first, second], base, parameters)
    expected, size = reference(0.25, first, second, base, dimension)
    bound = 2 * torch.finfo(found.dtype).eps + 1e-14
    assert (np.abs(found.numpy() - expected) <= bound * size).all()


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("axis", AXES)
def test_the_size_of_blocks_changes_no_bit(with_base: bool, axis: str):
    shape = (301, 777)
    base = random(shape, 3) if with_base else None
    candidates = [random(shape, seed, torch.bfloat16) for seed in (1, 2)]
    expected = nuslerp([1.0, 2.0], candidates, base, AXES[axis][0])
    for n in (1, 2):
        assert torch.equal(nuslerp([1.0, 2.0], candidates, base, AXES[axis][0], n * REDUCTION_BLOCK), expected)


def test_weights_count_by_their_ratio():
    candidates = [random((50,), seed) for seed in (1, 2)]
    assert torch.equal(nuslerp([2.0, 6.0], candidates), nuslerp([0.25, 0.75], candidates))


@pytest.mark.parametrize("weights, end", [([0.3, 0.0], 0), ([0.0, 2.0], 1)])
@pytest.mark.parametrize("axis", AXES)
def test_where_one_weight_is_zero_the_other_candidate_is_copied(weights: list[float], end: int, axis: str):
    candidates = [torch.tensor([[-0.0, 1e-45]]), torch.tensor([[0.1, -0.0]])]
    found = nuslerp(weights, candidates, torch.tensor([[3.0, 0.3]]), AXES[axis][0])
    assert found.view(torch.int32).tolist() == candidates[end].view(torch.int32).tolist()


def test_each_row_has_its_own_angle_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    # 90 degrees: sin 45 of each. Parallel: their mean.
    found = nuslerp([1.0, 1.0], [first, second], parameters=BY_ROW)
    assert found.tolist() == [pytest.approx([0.70711, 0.70711], abs=1e-5), [2.0, 0.0]]
    assert nuslerp([1.0, 1.0], [first.T, second.T], parameters=BY_COLUMN).tolist() == found.T.tolist()


def test_task_vectors_turn_around_the_base_by_hand():
    base = torch.tensor([10.0, 10.0])
    found = nuslerp([1.0, 1.0], [torch.tensor([11.0, 10.0]), torch.tensor([10.0, 11.0])], base)
    assert found.tolist() == pytest.approx([10.70711, 10.70711], abs=1e-5)


@pytest.mark.parametrize("axis", AXES)
def test_zero_equal_and_opposite_vectors_lie_on_a_line(axis: str):
    x, zero = torch.tensor([[2.0, -4.0], [6.0, 8.0]]), torch.zeros(2, 2)
    parameters = AXES[axis][0]
    for first, second in ((zero, x), (x, zero), (zero, zero), (x, x), (x, -x)):
        found = nuslerp([3.0, 1.0], [first, second], parameters=parameters)
        assert found.tolist() == (0.75 * first + 0.25 * second).tolist()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1), (1, 4)])
def test_tensors_without_two_long_sides_are_merged(axis: str, shape: tuple[int, ...]):
    first, second = torch.full(shape, 1.0), torch.full(shape, 3.0)
    found = nuslerp([3.0, 1.0], [first, second], torch.full(shape, -1.0), AXES[axis][0])
    assert found.tolist() == torch.full(shape, 1.5).tolist()


@pytest.mark.parametrize("axis", AXES)
def test_inputs_are_left_alone(axis: str):
    tensors = [random((3, 4), seed, torch.float64) for seed in range(3)]
    before = [tensor.clone() for tensor in tensors]
    nuslerp([1.0, 1.0], tensors[1:], tensors[0], AXES[axis][0])
    nuslerp([1.0, 1.0], tensors[1:], None, AXES[axis][0])
    assert all(map(torch.equal, tensors, before))


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.5]])
def test_weights_without_a_ratio_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match=r"'layer\.weight': nuslerp needs two weights that are 0 or more.*found"):
        make("nuslerp", (2,), weights)


def test_rows_of_what_is_taken_as_one_vector_are_refused():
    with pytest.raises(ValueError, match="nuslerp_row_wise means nothing while nuslerp_flatten is true"):
        make("nuslerp", (2, 2), [1.0, 1.0], {"nuslerp_row_wise": True})
