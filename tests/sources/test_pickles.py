import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.cache import ResultCache
from tasks.errors import CheckpointError
from tasks.sources.fetch import link_folder
from tasks.sources.pickles import convert_pickles, is_pickle
from tasks.tensors import read_header


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 4, generator=generator)
    return {
        "lm_head.weight": embeddings,
        "embed.weight": embeddings,  # Tied.
        "turned": torch.randn(3, 2, generator=generator).to(torch.bfloat16).T,
        "part": torch.arange(10)[2:5],
        "scalar": torch.tensor(1.5),
        "nothing": torch.zeros(0, 3),
    }


def save(path: Path, content: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_becomes_one_safetensors_file_with_equal_tensors(cache: ResultCache, tmp_path: Path, is_zip: bool):
    path = save(tmp_path / "pytorch_model.bin", tensors(), _use_new_zipfile_serialization=is_zip)
    converted = convert_pickles({"pytorch_model.bin": path, "config.json": tmp_path / "config.json"}, cache)
    assert list(converted) == ["model.safetensors"]
    assert_equal(load_file(converted["model.safetensors"].path), tensors())
    assert {view.name for view in read_header(converted["model.safetensors"].path)} == set(tensors())


def test_shards_become_shards_with_an_index(cache: ResultCache, tmp_path: Path):
    all_tensors = tensors()
    names = {
        "pytorch_model-00001-of-00002.bin": ["embed.weight", "part"],
        "pytorch_model-00002-of-00002.bin": ["turned"],
    }
    files = {
        shard: save(tmp_path / shard, {name: all_tensors[name] for name in inside}) for shard, inside in names.items()
    }
    weight_map = {name: shard for shard, inside in names.items() for name in inside}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    folder = link_folder(convert_pickles({**files, index.name: index}, cache), cache)
    written = json.loads((folder / "model.safetensors.index.json").read_text())
    assert written["weight_map"] == {
        "embed.weight": "model-00001-of-00002.safetensors",
        "part": "model-00001-of-00002.safetensors",
        "turned": "model-00002-of-00002.safetensors",
    }
    assert written["metadata"] == {"total_size": 5 * 4 * 4 + 3 * 8 + 6 * 2}  # float32, int64, bfloat16
    found = load_file(folder / "model-00001-of-00002.safetensors") | load_file(
        folder / "model-00002-of-00002.safetensors"
    )
    assert_equal(found, {name: all_tensors[name] for name in weight_map})


def test_modules_in_folders_are_converted_in_their_folders(cache: ResultCache, tmp_path: Path):
    files = {
        path: save(tmp_path / path, {"weight": torch.ones(1)})
        for path in ("pytorch_model.bin", "2_Dense/pytorch_model.bin")
    }
    assert sorted(convert_pickles(files, cache)) == ["2_Dense/model.safetensors", "model.safetensors"]


def test_equal_pickles_are_converted_once(cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path / "pytorch_model.bin", tensors())
    first = convert_pickles({"pytorch_model.bin": path}, cache)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", None)
        assert convert_pickles({"pytorch_model.bin": path}, cache) == first
    first["model.safetensors"].path.unlink()
    assert convert_pickles({"pytorch_model.bin": path}, cache) == first
    assert first["model.safetensors"].path.is_file()


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, goal: str):
        self.goal = goal

    def __reduce__(self) -> Any:
        return Path.write_text, (Path(self.goal), "run")


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(cache: ResultCache, tmp_path: Path):
    content = {"weight": torch.ones(1), "trap": Runs(str(tmp_path / "trace"))}
    zipped = save(tmp_path / "a" / "pytorch_model.bin", content)
    plain = tmp_path / "b" / "pytorch_model.bin"
    plain.parent.mkdir()
    plain.write_bytes(pickle.dumps(content["trap"], protocol=2))
    for path in (zipped, plain):
        with pytest.raises(CheckpointError, match="holds more than tensors, or is damaged, and was not loaded"):
            convert_pickles({"pytorch_model.bin": path}, cache)
    assert not (tmp_path / "trace").exists()
    assert not list((cache.folder / "files").glob("[!.]*/*"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_what_is_no_pickle_is_refused(cache: ResultCache, tmp_path: Path, content: bytes):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin \(.*\): this"):
        convert_pickles({"pytorch_model.bin": path}, cache)


def test_a_pickle_cut_short_is_refused(cache: ResultCache, tmp_path: Path):
    path = save(tmp_path / "pytorch_model.bin", tensors())
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin \(.*\): this"):
        convert_pickles({"pytorch_model.bin": path}, cache)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "expected a name for every tensor, found list"),
        ({"weight": torch.ones(1), "step": 3, "lr": 0.1}, "expected tensors only; these are none: step, lr"),
    ],
)
def test_what_is_not_a_name_and_a_tensor_is_refused(cache: ResultCache, tmp_path: Path, content: Any, message: str):
    path = save(tmp_path / "pytorch_model.bin", content)
    with pytest.raises(CheckpointError, match=message):
        convert_pickles({"pytorch_model.bin": path}, cache)


def test_shards_that_are_missing_are_named(cache: ResultCache, tmp_path: Path):
    shard = save(tmp_path / "pytorch_model-00001-of-00002.bin", {"weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"no pytorch_model.bin.index.json that names them all"):
        convert_pickles({shard.name: shard}, cache)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard.name, "b": "pytorch_model-00002-of-00002.bin"}}))
    with pytest.raises(CheckpointError, match=r"names shards that are not there: pytorch_model-00002-of-00002.bin"):
        convert_pickles({shard.name: shard, index.name: index}, cache)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="not there: none at all"):
        convert_pickles({shard.name: shard, index.name: index}, cache)
    with pytest.raises(CheckpointError, match=r"there are no pickled weights .*; found config.json"):
        convert_pickles({"config.json": index}, cache)


def test_only_weights_by_their_usual_names_are_pickles_to_convert():
    assert is_pickle("pytorch_model.bin") and is_pickle("2_Dense/pytorch_model.bin")
    assert is_pickle("pytorch_model-00001-of-00003.bin") and is_pickle("pytorch_model.bin.index.json")
    assert not is_pickle("training_args.bin") and not is_pickle("pytorch_model.bin.bak")
    assert not is_pickle("optimizer.pt") and not is_pickle("model.safetensors")
