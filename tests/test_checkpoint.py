import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.checkpoint import (
    describe_folder,
    is_model_file,
    is_weight_file,
    list_model_files,
    read_config,
    read_json_object,
    read_tensor_views,
    weight_files,
)
from tasks.digests import hash_file
from tasks.errors import CheckpointError
from tasks.records import FileDigest


def write_safetensors(path: Path, **tensors: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def test_components_and_shards_are_read_together_in_order(folder: Path):
    write_safetensors(folder / "model-2.safetensors", b=torch.ones(1))
    write_safetensors(folder / "model-1.safetensors", c=torch.ones(1))
    index = {"weight_map": {"b": "model-2.safetensors", "c": "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_safetensors(folder / "2_Dense/model.safetensors", **{"linear.weight": torch.ones(1)})
    (folder / "1_Pooling").mkdir()
    modules = [{"path": path} for path in ("", "1_Pooling", "2_Dense")]
    (folder / "modules.json").write_text(json.dumps(modules))
    views = read_tensor_views(folder)
    assert list(views) == ["b", "c", "2_Dense/linear.weight"]
    dense = views["2_Dense/linear.weight"]
    assert (dense.component, dense.name_in_file) == ("2_Dense", "linear.weight")
    assert (views["b"].component, views["b"].name_in_file) == ("", "b")


def test_the_single_file_wins_over_an_index_as_in_transformers(folder: Path):
    write_safetensors(folder / "model.safetensors", new=torch.ones(1))
    write_safetensors(folder / "model-1.safetensors", old=torch.ones(1))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"old": "model-1.safetensors"}}')
    assert list(read_tensor_views(folder)) == ["new"]


def test_a_tensor_in_two_shards_is_refused(folder: Path):
    for name in ("a.safetensors", "b.safetensors"):
        write_safetensors(folder / name, w=torch.ones(1))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "a.safetensors", "x": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"b\.safetensors: tensor 'w' is also in a\.safetensors"):
        read_tensor_views(folder)


def test_a_shard_that_is_missing_is_named(folder: Path):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "gone.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: the shard is missing, though the index names it"):
        read_tensor_views(folder)


@pytest.mark.parametrize("index", ['{"weight_map": ["a"]}', "{}", '{"weight_map": {"w": "../../etc/x"}}'])
def test_an_index_that_does_not_name_files_beside_it_is_refused(folder: Path, index: str):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="expected weight_map to say for every tensor which file beside it"):
        weight_files(folder)


def test_a_folder_with_pickled_weights_only_says_how_to_save_again(folder: Path):
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"found only pytorch_model\.bin.*save_pretrained"):
        weight_files(folder)


def test_a_folder_without_weights_is_refused(folder: Path):
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or .*, found none"):
        weight_files(folder)


@pytest.mark.parametrize("path", ["2_Dense/pytorch_model.bin", "2_Dense/query_0/model.safetensors"])
def test_a_component_whose_weights_cannot_be_read_is_refused(folder: Path, path: str):
    write_safetensors(folder / "model.safetensors", w=torch.ones(1))
    (folder / path).parent.mkdir(parents=True)
    (folder / path).touch()
    (folder / "modules.json").write_text('[{"path": ""}, {"path": "2_Dense"}]')
    with pytest.raises(CheckpointError, match=r"2_Dense: expected model.safetensors .* found only"):
        weight_files(folder)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b"])
def test_a_module_outside_the_folder_is_refused(folder: Path, path: str):
    write_safetensors(folder / "model.safetensors", w=torch.ones(1))
    (folder / "modules.json").write_text(json.dumps([{"path": path}]))
    with pytest.raises(CheckpointError, match="a module must lie inside the model's folder; found"):
        weight_files(folder)


@pytest.mark.parametrize("modules", ["{", '["x"]', "[{}]", '[{"name": "0"}]', "3"])
def test_a_broken_module_list_is_refused(folder: Path, modules: str):
    write_safetensors(folder / "model.safetensors", w=torch.ones(1))
    (folder / "modules.json").write_text(modules)
    with pytest.raises(CheckpointError, match=r"modules\.json: this is no list of modules with a path"):
        weight_files(folder)


def test_model_files_leave_out_notes_hidden_files_and_weights_of_other_forms(folder: Path):
    for name in ("tokenizer.json", "model.safetensors", "README.md", "pytorch_model.bin", "rust_model.ot", ".git"):
        (folder / name).touch()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").touch()
    (folder / "evaluation").mkdir()
    (folder / "evaluation/news.jsonl").touch()
    assert list_model_files(folder) == ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]
    assert not is_model_file("onnx/model.onnx")


def test_weight_files_are_told_from_the_others():
    assert is_weight_file("2_Dense/model.safetensors")
    assert is_weight_file("model.safetensors.index.json")
    assert not is_weight_file("tokenizer.json")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such folder"):
        list_model_files(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"there is no config\.json"):
        list_model_files(tmp_path)


def test_json_files_must_hold_an_object(tmp_path: Path):
    with pytest.raises(CheckpointError, match="the file is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="expected a JSON object, found list"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="this is no JSON"):
        read_json_object(tmp_path / "config.json")


def test_a_folder_is_described_by_its_content(folder: Path):
    files = {path: hash_file(folder / path) for path in list_model_files(folder)}
    checkpoint = describe_folder("news", "./news", folder, files)
    # printf '{"model_type": "llama"}' | sha256sum
    sha256 = "81dddc8c379baae137d99d24c5fa081d3a5ce52b6a221ddc22fe364711f8beaf"
    assert checkpoint.files == {"config.json": FileDigest(sha256, 23)}
    assert checkpoint.folder == folder.resolve()
    assert checkpoint.revision == f"sha256:{checkpoint.digest}"
