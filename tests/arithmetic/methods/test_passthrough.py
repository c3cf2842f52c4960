import pytest
import torch
from formulas import make, run


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_passes_bit_by_bit(dtype: torch.dtype):
    tensor = torch.tensor([-0.0, 0.0, torch.finfo(dtype).tiny / 4, 3.14159, -torch.finfo(dtype).max]).to(dtype)
    found = run(make("passthrough", (5,), [1.0]), None, [tensor]).to(dtype)
    assert found.view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_a_scale_multiplies_in_float32():
    tensor = torch.tensor([[3.0, -1.0]], dtype=torch.bfloat16)
    found = run(make("passthrough", (1, 2), [1.0], of_candidates=[{"scale": 0.3}]), None, [tensor])
    # By hand; bfloat16 would give 0.8984375.
    assert found.tolist() == [pytest.approx([0.9, -0.3], rel=1e-6)]


def test_a_number_without_dimensions_passes():
    assert run(make("passthrough", (), [1.0]), None, [torch.tensor(2.5)]).item() == 2.5
