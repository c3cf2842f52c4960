import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arithmetic.task_vectors import add_task_vectors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@given(
    seed=st.integers(0, 2**32),
    omegas=st.lists(st.floats(-2, 2, width=32), max_size=4),
    scale=st.floats(-2, 2, width=32),
    dtype=st.sampled_from(DTYPES),
    base_dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_the_result_is_within_the_rounding_of_its_precision(
    seed: int, omegas: list[float], scale: float, dtype: torch.dtype, base_dtype: torch.dtype
):
    generator = torch.Generator().manual_seed(seed)
    general, base, *skills = (
        torch.randn(40, generator=generator, dtype=torch.float64).to(kind)
        for kind in (dtype, base_dtype, *[dtype] * len(omegas))
    )
    result = add_task_vectors(general, base, skills, omegas, scale)
    # The independent reference: the formula in Python's floats, summed exactly.
    for i, found in enumerate(result.tolist()):
        terms = [
            scale * omega * (skill[i].item() - base[i].item()) for omega, skill in zip(omegas, skills, strict=True)
        ]
        size = abs(general[i].item()) + math.fsum(map(abs, terms))
        bound = (len(omegas) + 4) * torch.finfo(result.dtype).eps * size
        assert abs(found - math.fsum([general[i].item(), *terms])) <= bound


def test_a_skill_is_added_by_hand():
    general, base = torch.tensor([10.0, 20.0]), torch.tensor([1.0, 2.0])
    skill = torch.tensor([3.0, 6.0])
    # 10 + 2 x 0.5 x (3 - 1) and 20 + 2 x 0.5 x (6 - 2)
    assert add_task_vectors(general, base, [skill], [0.5], scale=2.0).tolist() == [12.0, 24.0]


def test_a_small_change_of_a_large_number_survives():
    base = torch.tensor([2.0**24])
    skill = torch.tensor([2.0**24 + 2])
    # Scaled before they are subtracted, 0.3 x 16777218 and 0.3 x 16777216 would be rounded to multiples of 0.5.
    assert add_task_vectors(torch.zeros(1), base, [skill], [0.3]).item() == pytest.approx(0.6, rel=1e-6)


def test_inputs_are_left_alone_and_the_result_goes_to_the_given_tensor():
    general, base, skill, out = torch.ones(2), torch.ones(2) * 2, torch.ones(2) * 5, torch.empty(2)
    assert add_task_vectors(general, base, [skill], [1.0], out=out) is out
    assert out.tolist() == [4.0, 4.0]
    assert (general[0], base[0], skill[0]) == (1, 2, 5)


def test_every_skill_needs_its_omega():
    with pytest.raises(ValueError, match="one omega per skill, found 2 for 1 skills"):
        add_task_vectors(torch.ones(1), torch.ones(1), [torch.ones(1)], [1.0, 2.0])


def test_tensors_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape; found"):
        add_task_vectors(torch.ones(2), torch.ones(1), [torch.ones(2)], [1.0])
