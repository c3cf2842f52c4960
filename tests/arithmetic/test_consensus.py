import numpy as np
import pytest
import torch

from tasks.arithmetic.consensus import agreeing_sum, plain_sum


def agree(vectors: list[list[float]], weights: list[float], normalize: bool) -> list[float]:
    """`agreeing_sum` of plain numbers, each vector multiplied by its weight."""
    stacked = torch.tensor(vectors)
    return agreeing_sum(stacked, weights, weights, normalize, torch.empty(stacked.shape[1])).tolist()


def test_the_sign_of_the_sum_is_elected_and_what_agrees_is_averaged():
    # Column 1: 1 + 2 - 4 < 0 elects minus, so -4 alone. Column 2: 1 + 2 - 1 > 0, so the mean of 1 and 2.
    assert agree([[1.0, 1.0], [2.0, 2.0], [-4.0, -1.0]], [1.0, 1.0, 1.0], normalize=True) == [-4.0, 1.5]


def test_without_normalisation_what_agrees_is_summed():
    assert agree([[1.0, 1.0], [2.0, 2.0], [-4.0, -1.0]], [1.0, 1.0, 1.0], normalize=False) == [-4.0, 3.0]


def test_weights_count_in_the_election_and_in_the_mean():
    # 3 x 1 > 0.5 x 4 elects plus. In column 2 all agree: (3 x 1 + 0.5 x 8) / 3.5.
    assert agree([[1.0, 1.0], [-4.0, 8.0]], [3.0, 0.5], normalize=True) == [1.0, 2.0]


def test_zeros_have_no_say_in_the_mean():
    assert agree([[0.0, 0.0], [6.0, 0.0]], [1.0, 1.0], normalize=True) == [6.0, 0.0]


def test_a_draw_elects_no_sign():
    assert agree([[2.0], [-2.0]], [0.5, 0.5], normalize=True) == [0.0]
    assert agree([[2.0], [-2.0]], [0.5, 0.5], normalize=False) == [0.0]


def test_a_negative_weight_turns_its_vector_also_when_normalised():
    # -1 x 2 and 1 x -4 agree: -6 over the sizes of the weights, 2.
    assert agree([[2.0], [-4.0]], [-1.0, 1.0], normalize=True) == [-3.0]


def test_a_single_vector_is_its_own_consensus():
    assert agree([[1.5, -2.5, 0.0]], [0.25], normalize=True) == [1.5, -2.5, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", [True, False])
def test_every_step_is_rounded_by_itself(dtype: torch.dtype, normalize: bool):
    # Three tiles of the kernel, the last of them ragged. A product and a sum in one step would round once less.
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 2500, generator=generator, dtype=torch.float64).to(dtype)
    weights = [0.3, 0.7, -1.1]
    numbers = np.stack(
        [vector * vector.dtype.type(weight) for vector, weight in zip(vectors.numpy(), weights, strict=True)]
    )
    elected = np.sign(numbers[0] + numbers[1] + numbers[2])
    agreeing = np.where(np.sign(numbers) == elected, numbers, 0)
    expected = agreeing[0] + agreeing[1] + agreeing[2]
    if normalize:
        sizes = np.where(agreeing != 0, np.abs(np.array(weights, numbers.dtype))[:, None], 0)
        expected /= sizes[0] + sizes[1] + sizes[2]
    found = agreeing_sum(vectors, weights, weights, normalize, torch.empty(2500, dtype=dtype))
    assert np.array_equal(found.numpy(), expected)


def test_the_smallest_numbers_still_have_a_sign():
    assert agree([[1e-45], [-0.0]], [1.0, 1.0], normalize=True) == torch.tensor([1e-45]).tolist()


def test_a_plain_sum_weighs_what_it_adds():
    vectors = torch.tensor([[1.0, 2.0], [4.0, -4.0]])
    assert plain_sum(vectors, [1.0, 0.5], torch.empty(2)).tolist() == [3.0, 0.0]


def test_the_plain_sum_of_nothing_is_zero():
    assert plain_sum(torch.empty(0, 2), [], torch.ones(2)).tolist() == [0.0, 0.0]
