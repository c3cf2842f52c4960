import pytest
import torch
from formulas import make, run
from sparsified_references import elected, fine_tuned, largest, merged, task_vectors

WEIGHTS = [1.0, 0.5, 0.75]
# More than three blocks of 64 Ki, the last of them ragged.
SHAPE = (67, 3001)


def reference(
    base: torch.Tensor,
    candidates: list[torch.Tensor],
    weights: list[float],
    densities: list[float],
    normalize: bool = True,
    scale: float = 1.0,
) -> torch.Tensor:
    vectors = task_vectors(base, candidates)
    trimmed = [
        vector * largest(vector, int(density * len(vector))) for vector, density in zip(vectors, densities, strict=True)
    ]
    return merged(base, elected(trimmed, weights, normalize), scale)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_merge_follows_the_paper(dtype: torch.dtype, normalize: bool):
    base, candidates = fine_tuned(SHAPE, 3, dtype)
    own = [{"density": 0.3}, {"density": 0.05}, {"density": 1.0}]
    formula = make("ties", SHAPE, WEIGHTS, {"normalize": normalize, "lambda": 0.5}, own)
    expected = reference(base, candidates, WEIGHTS, [0.3, 0.05, 1.0], normalize, 0.5)
    torch.testing.assert_close(run(formula, base, candidates).double(), expected, rtol=1e-6, atol=1e-8)


def test_blocks_of_any_size_give_the_same_bytes():
    base, candidates = fine_tuned(SHAPE, 3)
    results = [
        run(make("ties", SHAPE, WEIGHTS, None, [{"density": 0.3}] * 3), base, candidates, block)
        for block in (64 * 1024, 128 * 1024, 1024 * 1024)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


def test_the_example_worked_out_by_hand():
    base = torch.zeros(4)
    candidates = [torch.tensor([4.0, -3.0, 1.0, 0.5]), torch.tensor([-2.0, -1.0, 6.0, 0.25])]
    # Half of each is kept: [4, -3, 0, 0] and [-2, 0, 6, 0]. Column 1 elects plus: 4 alone.
    result = run(make("ties", (4,), [1.0, 1.0], None, [{"density": 0.5}] * 2), base, candidates)
    assert result.tolist() == [4.0, -3.0, 6.0, 0.0]


@pytest.mark.parametrize("shape", [(1,), (), (3, 1)])
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_tiny_tensors_are_merged(shape: tuple[int, ...], density: float):
    base, candidates = fine_tuned(shape, 3)
    result = run(make("ties", shape, WEIGHTS, None, [{"density": density}] * 3), base, candidates)
    torch.testing.assert_close(result.double(), reference(base, candidates, WEIGHTS, [density] * 3), rtol=1e-6, atol=0)


def test_density_1_keeps_everything_without_a_pass_and_density_0_nothing():
    base, candidates = fine_tuned(SHAPE, 2)
    formula = make("ties", SHAPE, [1.0, 1.0], None, [{"density": 1.0}, {"density": 0.0}])
    assert formula.n_passes == 0
    assert torch.equal(run(formula, base, candidates), candidates[0].float())


def test_a_candidate_equal_to_the_base_changes_nothing():
    base, (candidate,) = fine_tuned(SHAPE, 1)
    alone = run(make("ties", SHAPE, [1.0], None, [{"density": 0.2}]), base, [candidate])
    both = run(make("ties", SHAPE, [1.0, 0.3], None, [{"density": 0.2}] * 2), base, [candidate, base])
    assert torch.equal(both, alone)
    assert torch.equal(run(make("ties", SHAPE, [1.0], None, [{"density": 0.2}]), base, [base]), base.float())


def test_task_vectors_are_added_to_the_general_model():
    base, (general, skill) = fine_tuned((40,), 2, torch.float32)
    formula = make("ties", (40,), [1.0, 1.0], None, [{"density": 0.5}] * 2, general=0)
    vector = task_vectors(base, [skill])[0]
    torch.testing.assert_close(
        run(formula, base, [general, skill]).double(), merged(general, vector * largest(vector, 20)), rtol=1e-6, atol=0
    )


def test_a_candidate_of_weight_0_is_not_observed():
    base, candidates = fine_tuned((40,), 2)
    formula = make("ties", (40,), [0.0, 0.0], None, [{"density": 0.5}] * 2)
    assert formula.n_passes == 0
    assert torch.equal(run(formula, base, candidates), base.float())


def test_blocks_out_of_order_are_refused():
    base, candidates = fine_tuned((40,), 1)
    formula = make("ties", (40,), [1.0], None, [{"density": 0.5}])
    for number in range(formula.n_passes):
        formula.observe(number, 0, base, candidates)
    with pytest.raises(ValueError, match="in order; expected element 0, found 20"):
        formula.combine(20, base[20:], [candidates[0][20:]], torch.empty(20))


def test_a_merge_without_a_base_is_refused():
    _, candidates = fine_tuned((4,), 1)
    with pytest.raises(ValueError, match="need the base's tensors"):
        make("ties", (4,), [1.0]).combine(0, None, candidates, torch.empty(4))
