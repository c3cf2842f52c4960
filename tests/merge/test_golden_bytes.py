"""Bytes of merges as they were before methods had an interface of their own; a change here is a change of results.

Inputs are integers over a power of two, so that they are the same on every machine. Products are added with fused
multiply-add, as torch does on every x86-64 processor since 2013; without it the last bit may differ.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint

NAMES = {"base": torch.bfloat16, "general": torch.bfloat16, "news": torch.float32, "law": torch.float16}
SHAPES = {"embed": (300, 250), "layers.0.w": (24, 31), "norm": (24,), "scale": ()}
CASES: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear", "weights": (0.5, 0.3, 0.2)},
    "linear_zero": {"method": "linear", "weights": (0.0, 0.4, 0.6)},
    "linear_one": {"method": "linear", "weights": (1.0, 0.0, 0.0)},
    "task": {"method": "task_arithmetic", "weights": (0.25, 0.5, -0.75), "parameters": {"lambda": 1.5}},
    "task_general": {
        "method": "task_arithmetic",
        "weights": (0.25, 0.5, -0.75),
        "general": "general",
        "parameters": {"lambda": 0.7},
    },
    "task_zero": {"method": "task_arithmetic", "weights": (1.0, 0.5, 0.0), "general": "general"},
    "task_lambda_zero": {
        "method": "task_arithmetic",
        "weights": (1.0, 0.5, 0.2),
        "general": "general",
        "parameters": {"lambda": 0.0},
    },
}
SHA256 = {
    ("linear", "base"): "0399445cff71354e05893de9b53b274ba9a4fb8cbaac760e965afff02a685308",
    ("linear", "float16"): "da4c86dc14d652fc051b8d88ad6c33a72a3fa93eebf152a3da2298cb5c7394fe",
    ("linear_zero", "base"): "e1b474fd471d3d90af3895e74ab2277947fc37cd53d490fa25f59f316a7a86f6",
    ("linear_zero", "float16"): "af436a0107b5364879fbfea03cca229fa4f671a997c4a3230113c89bdd16c86d",
    ("linear_one", "base"): "11c32ca9901eec317d9f79ad32a036aea4c1eba2c367715c81451be8212d2e70",
    ("linear_one", "float16"): "a3aab250fb9d6636b1b91c76287536799ba5616a5cccc15909fc297a99770304",
    ("task", "base"): "d1d4527af72e87d67a7ff9d48195df1f609c82cf1160320367ae3934d11d62bf",
    ("task", "float16"): "3c70268bc673e4ad0836bfb0ea5efa1fbb38530dbaa01b21bdd55d41ae7e6a35",
    ("task_general", "base"): "6a54aec3ed373de25918e1ab9dec241985204637cd0c8ed3b95a0903bb8db101",
    ("task_general", "float16"): "01185b5e0724c28404ff748902885ce37b56130c90638513e8f198e934d96e89",
    ("task_zero", "base"): "1dfdb6606be1c10719915461999ad60408fb54edc4b23ea32ab9b209c3801a8f",
    ("task_zero", "float16"): "5ab2d5190166d0efc30d980ce7f6b990f14c4db0cf2ef1990a922b7a0e919693",
    ("task_lambda_zero", "base"): "11c32ca9901eec317d9f79ad32a036aea4c1eba2c367715c81451be8212d2e70",
    ("task_lambda_zero", "float16"): "a3aab250fb9d6636b1b91c76287536799ba5616a5cccc15909fc297a99770304",
}


def draw(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {"ids": torch.arange(9).reshape(1, 9)}
    for number, (name, shape) in enumerate(SHAPES.items(), 1):
        index = torch.arange(math.prod(shape))
        mixed = (index * 40503 + seed * 7919 + number * 104729) % 65521 - 32760
        tensors[name] = (mixed.double() / 32768).reshape(shape).to(dtype)
    return tensors


@pytest.fixture
def checkpoints(make_checkpoint) -> list[Checkpoint]:
    return [make_checkpoint(name, draw(seed, dtype)) for seed, (name, dtype) in enumerate(NAMES.items())]


@pytest.mark.parametrize("case, dtype", SHA256)
def test_a_merge_still_has_the_bytes_it_had(checkpoints: list[Checkpoint], case: str, dtype: str, tmp_path: Path):
    base, *candidates = checkpoints
    options = dict(CASES[case])
    weights = dict(zip(("general", "news", "law"), options.pop("weights"), strict=True))
    merge_checkpoints(
        base, candidates, weights, dtype=dtype, max_shard_bytes=10**9, template=base, output=tmp_path / "out", **options
    )
    content = (tmp_path / "out/model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[case, dtype]


def test_minus_zero_survives_where_no_skill_counts(make_checkpoint, load_all, tmp_path: Path):
    general, law = (make_checkpoint(name, {"w": torch.tensor([-0.0, 1.0])}) for name in ("general", "law"))
    merge_checkpoints(
        law, [general, law], {"general": 1.0, "law": 0.0}, method="task_arithmetic", general="general", dtype="base",
        max_shard_bytes=10**9, template=law, output=tmp_path / "out",
    )  # fmt: skip
    assert torch.signbit(load_all(tmp_path / "out")["w"]).tolist() == [True, False]
