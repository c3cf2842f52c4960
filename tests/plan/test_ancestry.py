import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from tasks.checkpoint import read_tensor_views
from tasks.plan.ancestry import (
    UNRELATED_DISTANCE,
    Ancestry,
    choose_sample,
    compare_with_base,
    direction_distance,
    is_finite,
    read_blocks,
)
from tasks.tensors import TensorView, read_header


def measure(base: Path, candidate: Path) -> Ancestry:
    views = read_tensor_views(base)
    sample = choose_sample(views)
    return compare_with_base(sample, {view.name: read_blocks(view) for view in sample}, read_tensor_views(candidate))


def test_two_random_initialisations_are_at_right_angles(write_model: Any, tensors: Any):
    random_tensors, _ = tensors
    found = measure(write_model("one", random_tensors(0)), write_model("two", random_tensors(1)))
    assert found.distance == pytest.approx(math.sqrt(2), abs=0.05)
    assert found.distance is not None and found.distance > UNRELATED_DISTANCE


@pytest.mark.parametrize("size", [0.01, 0.1, 0.4])
def test_a_fine_tune_is_as_far_as_its_steps_are_long(write_model: Any, tensors: Any, size: float):
    random_tensors, fine_tuned = tensors
    base = random_tensors(0)
    found = measure(write_model("base", base), write_model("tuned", fine_tuned(base, 1, size)))
    # Base and step are at right angles, so the angle between base and sum is atan(size); the chord is 2 sin(angle / 2).
    assert found.distance == pytest.approx(2 * math.sin(math.atan(size) / 2), rel=0.06)


def test_the_base_is_at_no_distance_from_itself_and_from_its_multiples(write_model: Any, tensors: Any):
    base = tensors[0](0)
    scaled = {name: 3 * value for name, value in base.items()}
    path = write_model("base", base)
    assert measure(path, path).distance == 0
    assert measure(path, write_model("scaled", scaled)).distance == pytest.approx(0, abs=1e-6)


def test_a_small_stranger_is_no_relative(write_model: Any, tensors: Any):
    """||candidate - base|| / ||base|| is 1.0 for any model with tiny weights; the angle is not."""
    small = {name: value * 0.01 for name, value in tensors[0](1).items()}
    found = measure(write_model("base", tensors[0](0)), write_model("small", small))
    assert found.distance == pytest.approx(math.sqrt(2), abs=0.05)


def test_distances_of_chosen_vectors():
    east, north = np.array([2.0, 0.0]), np.array([0.0, 5.0])
    assert direction_distance(east, north) == pytest.approx(math.sqrt(2))
    assert direction_distance(east, -east) == 2
    assert direction_distance(east, east + 1e-9 * north) == pytest.approx(2.5e-9)
    assert direction_distance(east, 0 * east) is None


def test_nan_and_infinity_are_named_and_do_not_blur_the_distance(write_model: Any, tensors: Any):
    random_tensors, fine_tuned = tensors
    base = random_tensors(0)
    broken = fine_tuned(base, 1)
    broken["lm_head.weight"][3, 5] = np.nan
    broken["model.layers.0.self_attn.q_proj.weight"][0, 0] = np.inf
    found = measure(write_model("base", base), write_model("broken", broken))
    assert set(found.non_finite) == {"lm_head.weight", "model.layers.0.self_attn.q_proj.weight"}
    assert found.distance == pytest.approx(0.1, rel=0.1)


def test_without_a_common_matrix_there_is_no_distance(write_model: Any, tensors: Any):
    other = {"another.weight": np.ones((32, 32), np.float32)}
    assert measure(write_model("base"), write_model("other", other)).distance is None


def test_the_sample_leaves_vectors_and_integers_out(write_model: Any, tensors: Any):
    base = tensors[0](0) | {"position_ids": np.arange(2048).reshape(2, 1024)}
    names = [view.name for view in choose_sample(read_tensor_views(write_model("base", base)))]
    assert names == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    ]


def test_the_sample_of_a_deep_model_is_spread_over_its_depth():
    views = {
        name: TensorView(name, "BF16", (64, 64), Path("model.safetensors"), 0)
        for name in (f"layers.{layer}.weight" for layer in range(100))
    }
    layers = [int(view.name.split(".")[1]) for view in choose_sample(views)]
    assert len(layers) == 24
    assert layers == sorted(layers)
    assert (layers[0], layers[-1]) == (0, 99)
    assert max(b - a for a, b in itertools.pairwise(layers)) == 5


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_blocks_lie_evenly_over_a_large_tensor(tmp_path: Path, dtype: Any):
    # 16 Ki elements each, the first at the beginning, the last at the end; numbers below 2048 are exact in float16.
    value = (np.arange(400 * 512) % 2039).reshape(400, 512).astype(dtype)
    save_file({"a": np.zeros((3, 3), np.float16), "weight": value}, tmp_path / "model.safetensors")
    view = read_tensor_views(tmp_path)["weight"]
    last = value.size - 16384
    flat = value.reshape(-1)
    expected = np.concatenate([flat[start : start + 16384] for start in (0, last // 3, 2 * last // 3, last)])
    np.testing.assert_array_equal(read_blocks(view), expected)


def test_bfloat16_is_read_as_the_upper_half_of_float32(tmp_path: Path):
    # 1.0, -2.5, 3.140625 and infinity in bfloat16, by the format's definition
    bits = np.array([0x3F80, 0xC020, 0x4049, 0x7F80], dtype="<u2")
    file = tmp_path / "tensor"
    file.write_bytes(b"header--" + bits.tobytes())
    view = TensorView("weight", "BF16", (2, 2), file, 8)
    assert read_blocks(view).tolist() == [1.0, -2.5, 3.140625, math.inf]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_infinity_are_found_anywhere_in_a_tensor_of_any_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    monkeypatch.setattr("tasks.plan.ancestry._READ_ELEMENTS", 4)
    largest = torch.finfo(dtype).max
    tensors = {"good": torch.tensor([0.0, -largest, largest, 1e-30, -1.0, 2.0], dtype=dtype)}
    for name, number in (("nan", math.nan), ("inf", math.inf), ("minus", -math.inf)):
        tensors[name] = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, number], dtype=dtype)
    save_tensors(tensors, tmp_path / "model.safetensors")
    found = {view.name: is_finite(view) for view in read_header(tmp_path / "model.safetensors", "")}
    assert found == {"good": True, "nan": False, "inf": False, "minus": False}
