"""Small checkpoints on disk, and their tensors back."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.arithmetic.method import Formula, TensorInputs
from tasks.arithmetic.methods.linear import Linear
from tasks.checkpoint import describe_folder, list_model_files, read_tensor_views
from tasks.digests import hash_file
from tasks.merge.job import Job, Output, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.ranges import open_descriptor, preallocate, write_range
from tasks.merge.sources import FileSource, TensorSource
from tasks.merge.stream import stream_tensors
from tasks.records import Checkpoint

MakeCheckpoint = Callable[..., Checkpoint]


@pytest.fixture
def describe() -> Callable[[str, Path], Checkpoint]:
    """The record of a folder under a name."""

    def run(name: str, folder: Path) -> Checkpoint:
        files = {path: hash_file(folder / path) for path in list_model_files(folder)}
        return describe_folder(name, str(folder), folder, files)

    return run


@pytest.fixture
def make_checkpoint(tmp_path: Path, describe: Callable[[str, Path], Checkpoint]) -> MakeCheckpoint:
    """Write tensors as a checkpoint of a name, in as many shards as asked, with config and tokenizer."""

    def make(name: str, tensors: Mapping[str, Tensor], n_shards: int = 1, dtype: str = "float32") -> Checkpoint:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"dtype": dtype, "rms_norm_eps": 1e-05}))
        (folder / "tokenizer.json").write_text(f'{{"of": "{name}"}}')
        _save(folder, tensors, n_shards)
        return describe(name, folder)

    return make


def _save(folder: Path, tensors: Mapping[str, Tensor], n_shards: int) -> None:
    if n_shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number in range(n_shards):
        shard = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        names = list(tensors)[number::n_shards]
        save_file({name: tensors[name] for name in names}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def load_all() -> Callable[[Path], dict[str, Tensor]]:
    """All tensors of a folder, read by the safetensors library; those of a component under its name."""

    def load(folder: Path) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for file in sorted(folder.rglob("*.safetensors")):
            component = file.parent.relative_to(folder).as_posix()
            prefix = "" if component == "." else f"{component}/"
            tensors |= {prefix + name: tensor for name, tensor in load_file(file).items()}
        return tensors

    return load


@pytest.fixture
def random_tensors() -> Callable[..., dict[str, Tensor]]:
    """A state dict with matrices, vectors, a scalar and an empty tensor, drawn from a seed."""

    def draw(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shapes = {
            "embed": (64, 24),
            "layers.0.w": (24, 24),
            "layers.10.w": (25, 31),
            "norm": (24,),
            "scale": (),
            "none": (0, 3),
        }
        return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}

    return draw


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., bytes]:
    """Average checkpoints equally, or by another formula, into one file and return its bytes."""

    def run(
        *checkpoints: Checkpoint,
        formula: Callable[[TensorInputs], Formula] = Linear,
        wrap: Callable[[FileSource], TensorSource] = lambda source: source,
        dtype: str = "base",
        n_threads: int = 2,
        block_elements: int = 1000,
        report: Callable[[int, int], None] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> bytes:
        files = [FileSource(each.name, read_tensor_views(each.folder)) for each in checkpoints]
        weights = (1 / len(checkpoints),) * len(checkpoints)
        (file,) = plan_layout(files[0].tensors, dtype, 10**9).files
        folder = tmp_path / f"streamed-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        path = folder / file.path
        preallocate(path, file.size)
        with open_descriptor(path, os.O_WRONLY) as descriptor:
            write_range(descriptor, 0, memoryview(file.header))
        output = Output(folder, lambda tensor: formula(TensorInputs(tensor.name, tensor.shape, weights)))
        sources: Sequence[TensorSource] = [wrap(each) for each in files]
        job = Job(sources[0], sources, [output], block_elements)
        before()
        stream_tensors(job, plan_parts(job, file.tensors), lambda *_: None, report, n_threads)
        return path.read_bytes()

    return run
