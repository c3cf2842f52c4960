"""A CUDA device merges what a CPU merges, up to the last bit. Needs one device: `make test-gpu`."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.checkpoint import describe_folder, list_model_files
from tasks.digests import hash_file
from tasks.errors import NonFiniteError
from tasks.merge.leased import merge_leased
from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint
from tasks.settings import MergeSettings

pytestmark = pytest.mark.gpu

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
# Two blocks on the device and a ragged end, and tensors that are smaller than a block.
SHAPES = {"embed": ((16 << 20) + 12345,), "w": (257, 129), "norm": (64,), "scale": ()}


def write(folder: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dtype": "float32"}))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    files = {path: hash_file(folder / path) for path in list_model_files(folder)}
    return describe_folder(folder.name, str(folder), folder, files)


def write_models(folder: Path, dtype: torch.dtype) -> list[Checkpoint]:
    """A base and three fine-tunes of it."""
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    models = [write(folder / "base", {name: tensor.to(dtype) for name, tensor in base.items()})]
    for name in WEIGHTS:
        tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for key, tensor in base.items()}
        models.append(write(folder / name, {key: tensor.to(dtype) for key, tensor in tuned.items()}))
    return models


def merge(models: list[Checkpoint], output: Path, device: str, method: str) -> dict[str, Tensor]:
    told = partial(
        merge_checkpoints, models[0], models[1:], WEIGHTS, method=method, dtype="base", max_shard_bytes=10**10,
        template=models[0], output=output,
    )  # fmt: skip
    merge_leased(MergeSettings(device=device), told, None)
    return load_file(output / "model.safetensors")


def allowed(result: Tensor, models: list[Checkpoint], name: str) -> Tensor:
    """One unit in the last place, or, where terms cancel, one rounding in float32 of the largest per source."""
    _, exponent = torch.frexp(result.double())
    last_place = torch.finfo(result.dtype).eps * torch.exp2((exponent - 1).double())
    terms = torch.stack([load_file(model.folder / "model.safetensors")[name].double().abs() for model in models])
    return torch.maximum(last_place, len(models) * 2.0**-24 * terms.amax(dim=0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_a_gpu_merges_what_a_cpu_merges_up_to_the_last_bit(method: str, dtype: torch.dtype, tmp_path: Path):
    models = write_models(tmp_path, dtype)
    on_cpu, on_gpu = (merge(models, tmp_path / device[:4], device, method) for device in ("cpu", "cuda:0"))
    for name, expected in on_cpu.items():
        difference = (on_gpu[name].double() - expected.double()).abs()
        assert bool((difference <= allowed(expected, models, name)).all()), f"{name}: {float(difference.max())}"


def test_two_merges_on_a_gpu_have_equal_bytes(tmp_path: Path):
    models = write_models(tmp_path, torch.bfloat16)
    for output in ("first", "second"):
        merge(models, tmp_path / output, "cuda:0", "linear")
    files = [(tmp_path / output / "model.safetensors").read_bytes() for output in ("first", "second")]
    assert files[0] == files[1]


def test_a_number_that_is_none_is_named_by_tensor_and_candidate(tmp_path: Path):
    models = [write(tmp_path / name, {"w": torch.ones(5000)}) for name in ("base", "a", "b")]
    broken = torch.ones(5000)
    broken[4321] = torch.inf
    models.append(write(tmp_path / "c", {"w": broken}))
    with pytest.raises(NonFiniteError, match=r"tensor 'w' holds NaN or infinity in c \("):
        merge(models, tmp_path / "merged", "cuda:0", "linear")
