import json
from pathlib import Path

import pytest

from tasks.checkpoint import is_safetensors
from tasks.errors import CheckpointError
from tasks.plan.weights import Weights, choose_weights, pickles_problem

INDEX = "model.safetensors.index.json"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An encoder with a Dense module, whose shards are named by an index."""
    modules = [
        {"type": "T", "path": ""},
        {"type": "Pooling", "path": "1_Pooling"},
        {"type": "Dense", "path": "2_Dense"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"}}))
    return tmp_path


def test_shards_of_the_root_and_weights_of_modules_are_taken(small: Path):
    paths = [INDEX, "m-1.safetensors", "m-2.safetensors", "m-3.safetensors", "2_Dense/model.safetensors", "onnx/m.onnx"]
    expected = ("m-1.safetensors", "m-2.safetensors", "2_Dense/model.safetensors")
    assert choose_weights(paths, small, "org/m") == Weights(expected, {})


def test_one_file_goes_before_shards_as_in_transformers(small: Path):
    paths = [INDEX, "m-1.safetensors", "m-2.safetensors", "model.safetensors"]
    assert choose_weights(paths, small, "org/m").safetensors == ("model.safetensors",)


def test_pickles_are_noted_where_there_is_nothing_else(small: Path):
    paths = [
        "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin",
        "2_Dense/pytorch_model.bin", "2_Dense/model.safetensors",
    ]  # fmt: skip
    found = choose_weights(paths, small, "org/m")
    assert found.safetensors == ("2_Dense/model.safetensors",)
    assert list(found.pickled) == [""] and "pytorch_model.bin" in found.pickled[""]
    assert "pytorch_model-00001-of-00001.bin" in pickles_problem(found, "org/m")


def test_a_module_with_a_pickle_is_not_taken_for_one_without_weights(small: Path):
    found = choose_weights(["model.safetensors", "2_Dense/pytorch_model.bin"], small, "org/m")
    assert found.pickled == {"2_Dense": ("2_Dense/pytorch_model.bin",)}


def test_shards_that_are_not_there_are_named(small: Path):
    with pytest.raises(
        CheckpointError, match=r"org/m/model\.safetensors\.index\.json: it names .* not there: m-2\.safe"
    ):
        choose_weights([INDEX, "m-1.safetensors"], small, "org/m")


def test_an_index_that_names_no_files_is_refused(small: Path):
    (small / INDEX).write_text('{"weight_map": {"a": 1}}')
    with pytest.raises(
        CheckpointError, match=r"expected weight_map to say for every tensor which file beside it has it"
    ):
        choose_weights([INDEX], small, "org/m")


def test_weights_in_other_forms_only_are_named(small: Path):
    with pytest.raises(
        CheckpointError, match=r"expected model\.safetensors or .*, found only model\.gguf; only safetensors"
    ):
        choose_weights(["model.gguf"], small, "org/m")


def test_only_the_ending_makes_safetensors():
    assert is_safetensors("2_Dense/model.safetensors") and not is_safetensors(INDEX)
