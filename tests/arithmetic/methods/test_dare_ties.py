import numpy as np
import pytest
import torch
from formulas import make, run
from sparsified_references import elected, fine_tuned, merged, task_vectors

from tasks.arithmetic.random_masks import PositionalNumbers

SHAPE = (67, 3001)
WEIGHTS = [0.5, 1.0, 0.75]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_the_merge_follows_the_papers(normalize: bool, rescale: bool):
    base, candidates = fine_tuned(SHAPE, 3)
    densities = [0.5, 0.25, 1.0]
    formula = make(
        "dare_ties",
        SHAPE,
        WEIGHTS,
        {"normalize": normalize, "rescale": rescale},
        [{"density": density} for density in densities],
    )
    vectors = [
        vector
        * (PositionalNumbers(0, "layer.weight", f"candidate{i}").fill(0, np.empty(base.numel(), np.uint32)) / 2**32 < p)
        / (p if rescale else 1)
        for i, (vector, p) in enumerate(zip(task_vectors(base, candidates), densities, strict=True))
    ]
    expected = merged(base, elected(vectors, WEIGHTS, normalize))
    torch.testing.assert_close(run(formula, base, candidates).double(), expected, rtol=1e-6, atol=1e-8)


def test_density_1_is_ties_of_density_1():
    base, candidates = fine_tuned(SHAPE, 3)
    dare = run(make("dare_ties", SHAPE, WEIGHTS, {"normalize": True}), base, candidates)
    assert torch.equal(dare, run(make("ties", SHAPE, WEIGHTS), base, candidates))


def test_blocks_of_any_size_give_the_same_bytes():
    base, candidates = fine_tuned(SHAPE, 3)
    formula = make("dare_ties", SHAPE, WEIGHTS, None, [{"density": 0.3}] * 3)
    results = [run(formula, base, candidates, block) for block in (1000, 64 * 1024, 1024 * 1024)]
    assert all(torch.equal(result, results[0]) for result in results)
