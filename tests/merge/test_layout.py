import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tasks.merge.layout import plan_layout
from tasks.tensors import TensorView


def view(name: str, dtype: str, *shape: int, component: str = "") -> TensorView:
    return TensorView(name, dtype, shape, Path("elsewhere"), 999, component)


def by_name(*views: TensorView) -> dict[str, TensorView]:
    return {each.name: each for each in views}


def test_a_file_is_laid_out_byte_for_byte_as_safetensors_writes_it():
    tensors = {"b": torch.ones(3, 2), "a": torch.ones(5, dtype=torch.bfloat16), "ids": torch.ones(1, dtype=torch.int64)}
    layout = plan_layout(by_name(view("a", "BF16", 5), view("b", "F32", 3, 2), view("ids", "I64", 1)), "base", 10**9)
    (file,) = layout.files
    # The reference: the library's own bytes.
    expected = save(tensors, metadata={"format": "pt"})
    assert file.header == expected[: len(file.header)]
    assert file.size == len(expected)
    assert [tensor.name for tensor in file.tensors] == ["ids", "b", "a"]
    assert file.tensors[1].start == len(file.header) + 8


def test_floating_tensors_get_the_asked_dtype_and_integers_keep_theirs():
    layout = plan_layout(by_name(view("w", "F32", 2), view("d", "F64", 2), view("ids", "I64", 2)), "bfloat16", 10**9)
    assert {tensor.name: tensor.dtype for tensor in layout.files[0].tensors} == {"w": "BF16", "d": "BF16", "ids": "I64"}
    assert layout.float_dtypes() == {"BF16"}


def test_shards_are_filled_in_order_and_named_as_on_the_hub():
    tensors = by_name(view("a", "F32", 2), view("b", "F32", 2), view("c", "F32", 9), view("d", "F32", 1))
    layout = plan_layout(tensors, "base", max_shard_bytes=16)
    assert [file.path for file in layout.files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    # c is larger than a shard may be and stands alone.
    assert [[tensor.name for tensor in file.tensors] for file in layout.files] == [["a", "b"], ["c"], ["d"]]
    index = json.loads(layout.indexes["model.safetensors.index.json"])
    assert index["metadata"] == {"total_size": 56}
    assert index["weight_map"] == {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00001-of-00003.safetensors",
        "c": "model-00002-of-00003.safetensors",
        "d": "model-00003-of-00003.safetensors",
    }


def test_components_have_files_of_their_own_with_their_own_names():
    dense = view("2_Dense/linear.weight", "F32", 4, component="2_Dense")
    layout = plan_layout(by_name(view("w", "BF16", 2), dense), "base", 10**9)
    assert [file.path for file in layout.files] == ["model.safetensors", "2_Dense/model.safetensors"]
    assert json.loads(layout.files[1].header[8:])["linear.weight"]["data_offsets"] == [0, 16]
    assert layout.indexes == {}
    assert layout.float_dtypes() == {"BF16"}


def test_the_size_of_all_bytes_is_known_beforehand():
    layout = plan_layout(by_name(view("a", "F32", 2), view("b", "F32", 2)), "base", max_shard_bytes=8)
    assert layout.n_bytes == sum(file.size for file in layout.files) + len(
        layout.indexes["model.safetensors.index.json"]
    )


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="unknown dtype 'int8'; expected base or one of float64, float32"):
        plan_layout({}, "int8", 10)
