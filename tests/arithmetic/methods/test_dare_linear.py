import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from formulas import make, run
from sparsified_references import Vector, fine_tuned, merged, task_vectors

from tasks.arithmetic.method import TensorInputs
from tasks.arithmetic.methods.dare_linear import DropAtRandom
from tasks.arithmetic.random_masks import PositionalNumbers

WEIGHTS = [0.5, 0.75]
SHAPE = (67, 3001)


def dropped(vector: Vector, density: float, candidate: int, seed: int = 0, name: str = "layer.weight") -> Vector:
    """DARE, equations 2 and 3: a mask of Bernoulli numbers, then division by the density."""
    numbers = PositionalNumbers(seed, name, f"candidate{candidate}").fill(0, np.empty(len(vector), np.uint32))
    return vector * (numbers / 2**32 < density) / density


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_merge_follows_the_paper(dtype: torch.dtype):
    base, candidates = fine_tuned(SHAPE, 2, dtype)
    formula = make("dare_linear", SHAPE, WEIGHTS, {"lambda": 0.5}, [{"density": 0.25}, {"density": 0.6}])
    first, second = task_vectors(base, candidates)
    change = 0.5 * dropped(first, 0.25, 0) + 0.75 * dropped(second, 0.6, 1)
    torch.testing.assert_close(run(formula, base, candidates).double(), merged(base, change, 0.5), rtol=1e-6, atol=1e-8)


def test_without_rescaling_what_is_kept_stays_as_it_is():
    base, (candidate,) = fine_tuned(SHAPE, 1)
    result = run(make("dare_linear", SHAPE, [1.0], {"rescale": False}, [{"density": 0.3}]), base, [candidate])
    kept = result != base
    assert torch.equal(result[kept], candidate.float()[kept])
    changed = int((candidate != base).sum())
    assert abs(int(kept.sum()) - 0.3 * changed) < 4 * math.sqrt(changed * 0.3 * 0.7)


def test_normalised_weights_are_divided_by_their_sum():
    base, candidates = fine_tuned(SHAPE, 2)
    own = [{"density": 0.5}] * 2
    normalised = run(make("dare_linear", SHAPE, [3.0, 1.0], {"normalize": True}, own), base, candidates)
    assert torch.equal(normalised, run(make("dare_linear", SHAPE, [0.75, 0.25], None, own), base, candidates))


def test_the_mean_over_seeds_is_the_task_vector():
    base, candidate = torch.zeros(50), torch.linspace(-2, 3, 50)
    n_seeds, density = 2000, 0.3
    total = sum(
        run(make("dare_linear", (50,), [1.0], None, [{"density": density}], seed=seed), base, [candidate]).double()
        for seed in range(n_seeds)
    )
    # The variance of a mask divided by its density is (1 - density) / density.
    error = candidate.double().abs() * math.sqrt((1 - density) / density / n_seeds)
    assert torch.all((total / n_seeds - candidate.double()).abs() <= 4.5 * error)


def test_seeds_tensors_and_candidates_have_masks_of_their_own():
    base, candidate = torch.zeros(1000), torch.ones(1000)
    own = [{"density": 0.5}]
    results = [
        run(make("dare_linear", (1000,), [1.0], None, own, seed=seed, name=name), base, [candidate])
        for seed, name in ((0, "a"), (1, "a"), (0, "b"))
    ]
    weights = ([1.0, 0.0], [0.0, 1.0])
    results += [run(make("dare_linear", (1000,), each, None, own * 2), base, [candidate] * 2) for each in weights]
    for i, left in enumerate(results):
        for right in results[:i]:
            assert 400 < int((left != right).sum()) < 600


def test_blocks_of_any_size_by_any_number_of_threads_give_the_same_bytes():
    base, candidates = fine_tuned((200_001,), 2)
    formula = make("dare_linear", (200_001,), WEIGHTS, None, [{"density": 0.3}] * 2)
    assert formula.n_passes == 0
    whole = run(formula, base, candidates)
    out = torch.empty(200_001)

    def combine(first: int) -> None:
        part = slice(first, first + 7001)
        formula.combine(first, base[part], [candidate[part] for candidate in candidates], out[part])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(combine, range(0, 200_001, 7001)))
    assert torch.equal(out, whole)


def test_density_1_is_task_arithmetic_bit_by_bit_and_density_0_the_base():
    base, candidates = fine_tuned(SHAPE, 2)
    plain = run(make("task_arithmetic", SHAPE, [0.3, 0.7]), base, candidates)
    assert torch.equal(run(make("dare_linear", SHAPE, [0.3, 0.7]), base, candidates), plain)
    nothing = make("dare_linear", SHAPE, [0.3, 0.7], None, [{"density": 0.0}] * 2)
    assert torch.equal(run(nothing, base, candidates), base.float())


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_tensor_of_one_element_is_kept_and_rescaled_or_dropped(shape: tuple[int, ...]):
    base, candidate = torch.ones(shape), torch.full(shape, 3.0)
    found = {
        run(make("dare_linear", shape, [1.0], None, [{"density": 0.5}], seed=seed), base, [candidate]).item()
        for seed in range(20)
    }
    assert found == {1.0, 5.0}


def test_nothing_is_observed():
    sparsifier = DropAtRandom(TensorInputs("t", (1,), (1.0,), {"rescale": True}, ({"density": 0.5},)))
    with pytest.raises(NotImplementedError, match="nothing that was to be seen"):
        sparsifier.observe(0, torch.zeros(1), [torch.zeros(1)])
