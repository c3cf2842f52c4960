"""Whole merges with and without the library in C: the same files, and what overflows is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.arithmetic import library
from tasks.errors import NonFiniteError
from tasks.merge.merge import merge_checkpoints
from tasks.processor import has_fma
from tasks.records import Checkpoint

SHAPES = {"embed.weight": (70, 24), "layers.0.w.weight": (24, 24), "layers.1.w.weight": (25, 23), "norm.weight": (23,)}
METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"parameters": {"lambda": 0.7}},
    "task_arithmetic, general": {"method": "task_arithmetic", "general": "law"},
    "slerp": {"parameters": {"t": 0.3}},
    "ties": {"candidate_parameters": {"law": {"density": 0.4}, "news": {"density": 0.6}}},
    "ties, general": {"method": "ties", "general": "news", "candidate_parameters": {"law": {"density": 0.4}}},
    "dare_linear": {"candidate_parameters": {"law": {"density": 0.5}}, "parameters": {"lambda": 0.7}},
    "dare_ties": {"candidate_parameters": {"law": {"density": 0.5}}, "seed": 2},
    "della": {"candidate_parameters": {"news": {"density": 0.5}}},
    "breadcrumbs": {"candidate_parameters": {"news": {"density": 0.5}}},
    "model_stock": {},
    "nuslerp": {},
}


PARAMETERS = {"ties": {"normalize": False}}
DTYPES = [("bfloat16",) * 3, ("float32", "bfloat16", "float32"), ("float16", "bfloat16", "float32")]


def draw(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


@pytest.fixture
def merge(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Merge into a folder of a name; its weight files."""

    def run(models: list[Checkpoint], output: str, method: str, **options: Any) -> dict[str, bytes]:
        base, *candidates = models
        weights = {each.name: 0.3 + 0.4 * index for index, each in enumerate(candidates)}
        sizes = {"dtype": "base", "max_shard_bytes": 10**9, "template": base, "output": tmp_path / output}
        merged = merge_checkpoints(base, candidates, **{"weights": weights, "method": method, **sizes, **options})
        return {path.name: path.read_bytes() for path in merged.checkpoint.folder.glob("*.safetensors")}

    return run


@pytest.mark.skipif(has_fma() is False, reason="torch does not fuse products and sums on this processor")
@pytest.mark.parametrize(
    "dtypes", [("bfloat16",) * 3, ("float32", "bfloat16", "float32"), ("float16", "bfloat16", "float32")]
)
@pytest.mark.parametrize("name", METHODS)
def test_the_files_are_those_that_torch_writes(
    make_checkpoint: Callable[..., Checkpoint], merge: Callable[..., dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch, name: str, dtypes: tuple[str, ...],
):  # fmt: skip
    models = [
        make_checkpoint(each, draw(seed, getattr(torch, dtype)))
        for seed, (each, dtype) in enumerate(zip(("base", "law", "news"), dtypes, strict=True))
    ]
    options = {"method": name.partition(",")[0]} | METHODS[name]
    found = merge(models, "in one pass", **options)
    monkeypatch.setattr(library, "load_library", lambda: None)
    assert found == merge(models, "by torch", **options)


@pytest.mark.skipif(library.load_library() is None, reason="there is no C compiler")
def test_none_of_it_needs_torch(make_checkpoint: Callable[..., Checkpoint], tmp_path: Path):
    """It takes longer to import than to merge a small model."""
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    folders = [str(make_checkpoint(f"model {seed}", draw(seed, dtype)).folder) for seed, dtype in enumerate(dtypes)]
    cases = [{"method": name.partition(",")[0]} | METHODS[name] for name in METHODS]
    program = """
import json, sys
from pathlib import Path
from tasks.checkpoint import describe_folder
from tasks.digests import hash_file
from tasks.merge.merge import merge_checkpoints
folders, cases, output = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
def describe(name, folder):
    files = {p.name: hash_file(p) for p in folder.iterdir()}
    return describe_folder(name, str(folder), folder, files)
base, law, news = (describe(name, Path(folder)) for name, folder in zip(("base", "law", "news"), folders))
for number, case in enumerate(cases):
    merge_checkpoints(base, [law, news], {"law": 0.4, "news": 0.6}, dtype="base", max_shard_bytes=10**9, template=base,
        output=output / str(number), **case)
    print(case["method"], {"torch", "numba"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(folders), json.dumps(cases), str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert done.stdout.splitlines() == [f"{case['method']} set()" for case in cases]


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
def test_what_overflows_is_refused_and_named(
    make_checkpoint: Callable[..., Checkpoint], merge: Callable[..., dict[str, bytes]], method: str
):
    def model(each: str, number: float) -> Checkpoint:
        return make_checkpoint(each, {"w.weight": torch.full((4, 4), number).bfloat16()})

    models = [model("base", -1e38), model("law", 3e38), model("news", 3e38)]
    with pytest.raises(NonFiniteError, match=r"'w.weight'.*combination.*overflows BF16; choose smaller merge weights"):
        merge(models, "out", method, weights={"law": 1.5, "news": 1.5}, parameters=PARAMETERS.get(method, {}))
