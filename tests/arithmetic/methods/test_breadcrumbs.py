import pytest
import torch
from formulas import make, run
from sparsified_references import Vector, elected, fine_tuned, largest, merged, task_vectors

SHAPE = (67, 3001)
WEIGHTS = [0.5, 1.0, 0.75]


def middle(vector: Vector, density: float, gamma: float) -> Vector:
    """Model Breadcrumbs, section 3: without the largest (gamma) and the smallest; density says how many stay."""
    n_kept, n = int(density * len(vector)), len(vector)
    n_large = min(int(gamma * n), n - n_kept)
    return vector * (largest(vector, n_large + n_kept) & ~largest(vector, n_large))


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_merge_follows_the_paper(method: str, dtype: torch.dtype):
    base, candidates = fine_tuned(SHAPE, 3, dtype)
    chosen = [(0.3, 0.01), (0.9, 0.1), (0.5, 0.0)]
    own = [{"density": density, "gamma": gamma} for density, gamma in chosen]
    formula = make(method, SHAPE, WEIGHTS, {"lambda": 0.5}, own)
    vectors = [middle(v, *each) for v, each in zip(task_vectors(base, candidates), chosen, strict=True)]
    if method == "breadcrumbs":
        change = sum(weight * vector for weight, vector in zip(WEIGHTS, vectors, strict=True))
    else:
        change = elected(vectors, WEIGHTS, normalize=False)
    torch.testing.assert_close(run(formula, base, candidates).double(), merged(base, change, 0.5), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_blocks_of_any_size_give_the_same_bytes(method: str):
    base, candidates = fine_tuned(SHAPE, 3)
    own = [{"density": 0.3, "gamma": 0.05}] * 3
    results = [
        run(make(method, SHAPE, WEIGHTS, None, own), base, candidates, block) for block in (64 * 1024, 192 * 1024)
    ]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("density", "gamma", "expected"),
    [
        (0.5, 0.25, [0.0, 2.0, -3.0, 0.0]),
        (0.5, 0.0, [0.0, 0.0, -3.0, 4.0]),
        # Gamma gives way to density: one of four may go.
        (0.75, 0.5, [1.0, 2.0, -3.0, 0.0]),
        (1.0, 0.25, [1.0, 2.0, -3.0, 4.0]),
        (0.0, 0.25, [0.0, 0.0, 0.0, 0.0]),
        (0.25, 0.75, [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_example_worked_out_by_hand(density: float, gamma: float, expected: list[float]):
    candidate = torch.tensor([1.0, 2.0, -3.0, 4.0])
    formula = make("breadcrumbs", (4,), [1.0], None, [{"density": density, "gamma": gamma}])
    assert run(formula, torch.zeros(4), [candidate]).tolist() == expected


def test_of_equal_magnitudes_the_first_count_as_larger():
    candidate = torch.tensor([2.0, -2.0, 2.0, 2.0, 2.0])
    formula = make("breadcrumbs", (5,), [1.0], None, [{"density": 0.4, "gamma": 0.2}])
    # One too large, two kept, two too small.
    assert run(formula, torch.zeros(5), [candidate]).tolist() == [0.0, -2.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_tensor_of_one_element_is_kept_by_density_1_alone(shape: tuple[int, ...]):
    base, candidate = torch.ones(shape), torch.full(shape, 3.0)
    kept = [
        run(make("breadcrumbs", shape, [1.0], None, [{"density": density}]), base, [candidate]).item()
        for density in (0.0, 0.9, 1.0)
    ]
    assert kept == [1.0, 1.0, 3.0]


def test_density_1_needs_no_pass():
    assert make("breadcrumbs", SHAPE, WEIGHTS).n_passes == 0


def test_a_candidate_equal_to_the_base_changes_nothing():
    base, _ = fine_tuned(SHAPE, 1)
    own = [{"density": 0.5, "gamma": 0.1}]
    assert torch.equal(run(make("breadcrumbs", SHAPE, [1.0], None, own), base, [base]), base.float())
