import math

import numpy as np
import pytest
import torch
from formulas import make, run
from sparsified_references import Vector, elected, fine_tuned, merged, task_vectors

from tasks.arithmetic.method import TensorInputs
from tasks.arithmetic.methods.della import DropBySize, keep_chances
from tasks.arithmetic.random_masks import PositionalNumbers

# Such that no sum of changes cancels but for rounding, which could elect another sign than float64.
WEIGHTS = [0.5**0.5, 0.9**0.5, 0.6**0.5]


def probabilities(vector: Vector, length: int, density: float, epsilon: float) -> Vector:
    """DELLA, section 3.1: linear in the rank of the magnitude in its row, from density - epsilon to + epsilon.

    Equal magnitudes, of which the paper says nothing, have the mean of their ranks.
    """
    rows = np.abs(vector).reshape(-1, length)
    first, stop = (np.array([np.searchsorted(np.sort(row), row, side) for row in rows]) for side in ("left", "right"))
    ranks = (first + stop - 1) / 2
    share = ranks / (length - 1) if length > 1 else np.full(rows.shape, 0.5)
    return (density + epsilon * (2 * share - 1)).reshape(-1)


def dropped(
    vector: Vector, length: int, density: float, epsilon: float, candidate: int, rescale: bool = True
) -> Vector:
    keep = probabilities(vector, length, density, epsilon)
    stream = PositionalNumbers(0, "layer.weight", f"candidate{candidate}")
    numbers = stream.fill(0, np.empty(len(vector), np.uint32)) / 2**32
    return vector * (numbers < keep) / (keep if rescale else 1)


@pytest.mark.parametrize("method", ["della", "della_linear"])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("shape", [(3001, 67), (5, 40_001), (70_000,), (30, 4, 3), (9, 1), (1,), ()], ids=str)
def test_the_merge_follows_the_paper(method: str, rescale: bool, shape: tuple[int, ...]):
    base, candidates = fine_tuned(shape, 3)
    chosen = [(0.3, 0.15), (0.6, 0.4), (0.5, 0.0)]
    own = [{"density": density, "epsilon": epsilon} for density, epsilon in chosen]
    formula = make(method, shape, WEIGHTS, {"rescale": rescale, "lambda": 0.5}, own)
    length = shape[-1] if shape else 1
    vectors = [
        dropped(vector, length, *each, index, rescale)
        for index, (vector, each) in enumerate(zip(task_vectors(base, candidates), chosen, strict=True))
    ]
    if method == "della":
        change = elected(vectors, WEIGHTS, normalize=True)
    else:
        change = sum(weight * vector for weight, vector in zip(WEIGHTS, vectors, strict=True))
    torch.testing.assert_close(run(formula, base, candidates).double(), merged(base, change, 0.5), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_blocks_of_any_size_give_the_same_bytes(method: str):
    base, candidates = fine_tuned((3001, 67), 2)
    formula = make(method, (3001, 67), [1.0, 1.0], None, [{"density": 0.4}] * 2)
    assert (formula.n_passes, formula.whole_rows) == (0, True)
    results = [run(formula, base, candidates, block) for block in (1, 10_000, 1_000_000)]
    assert all(torch.equal(result, results[0]) for result in results)


def test_probabilities_rise_from_density_minus_to_density_plus_epsilon():
    # In units of 2**-31.
    assert keep_chances(0.5, 0.25, 3)[1::2].tolist() == [2**29, 2**30, 3 * 2**29]
    assert keep_chances(0.5, 0.25, 3)[2:-1:2].tolist() == [3 * 2**28, 5 * 2**28]
    assert keep_chances(0.5, 0.25, 1).tolist() == [2**30] * 3
    # One can divide by the smallest, and the largest fits into 31 bits.
    assert keep_chances(0.5, 0.5, 2).tolist() == [1, 1, 2**30, 2**31 - 1, 2**31 - 1]


def test_equal_changes_have_equal_chances_wherever_they_are():
    base, candidate = torch.zeros(1, 40), torch.full((1, 40), 0.5)
    own = [{"density": 0.5, "epsilon": 0.5}]
    kept = sum(run(make("della", (1, 40), [1.0], None, own, seed=seed), base, [candidate]) != 0 for seed in range(2000))
    # Ranks by position would keep the first element never and the last always.
    assert torch.all((kept / 2000 - 0.5).abs() < 4.5 * (0.25 / 2000) ** 0.5)


def test_the_mean_over_seeds_is_the_task_vector():
    base, candidate = torch.zeros(2, 25), torch.linspace(-2, 3, 50).reshape(2, 25)
    n_seeds = 2000
    own = [{"density": 0.4, "epsilon": 0.3}]
    total = sum(
        run(make("della", (2, 25), [1.0], None, own, seed=seed), base, [candidate]).double() for seed in range(n_seeds)
    )
    keep = torch.from_numpy(probabilities(candidate.double().numpy().reshape(-1), 25, 0.4, 0.3)).reshape(2, 25)
    error = candidate.double().abs() * ((1 - keep) / keep / n_seeds).sqrt()
    assert torch.all((total / n_seeds - candidate.double()).abs() <= 4.5 * error)


def test_density_1_keeps_everything_whatever_epsilon_and_density_0_nothing():
    base, candidates = fine_tuned((30, 67), 2)
    everything = run(make("della", (30, 67), [1.0, 1.0]), base, candidates)
    assert torch.equal(everything, run(make("ties", (30, 67), [1.0, 1.0]), base, candidates))
    nothing = run(make("della", (30, 67), [1.0, 1.0], None, [{"density": 0.0}] * 2), base, candidates)
    assert torch.equal(nothing, base.float())


def test_a_candidate_equal_to_the_base_changes_nothing():
    base, (candidate,) = fine_tuned((30, 67), 1)
    alone = run(make("della", (30, 67), [1.0], None, [{"density": 0.5}]), base, [candidate])
    both = run(make("della", (30, 67), [1.0, 1.0], None, [{"density": 0.5}] * 2), base, [candidate, base])
    assert torch.equal(both, alone)


def test_probabilities_beyond_0_and_1_are_refused_for_all_candidates():
    own = [{"density": 0.1}, {"density": 0.5}, {"density": 0.9}]
    with pytest.raises(ValueError, match=r"candidate0 \(0.1 - 0.15 .*candidate2 \(0.9 - .*smaller epsilon") as raised:
        make("della", (4,), WEIGHTS, None, own)
    assert "candidate1" not in str(raised.value)


def test_the_bounds_themselves_are_allowed():
    base, candidates = fine_tuned((2000,), 1)
    result = run(make("della", (2000,), [1.0], None, [{"density": 0.5, "epsilon": 0.5}]), base, candidates)
    assert math.isfinite(result.sum().item())


def test_nothing_is_observed():
    inputs = TensorInputs("t", (1,), (1.0,), {"rescale": True}, ({"density": 0.5, "epsilon": 0.1},))
    with pytest.raises(NotImplementedError, match="nothing that was to be seen"):
        DropBySize(inputs).observe(0, torch.zeros(1), [torch.zeros(1)])
