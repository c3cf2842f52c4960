"""Headers are believed only where they can be true."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tasks.errors import CheckpointError
from tasks.tensors import TensorView, dtype_in_output, read_header


def write_safetensors(path: Path, **tensors: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_views_say_where_the_bytes_of_a_tensor_lie(tmp_path: Path):
    tensor = torch.arange(6, dtype=torch.int64).reshape(2, 3)
    file = write_safetensors(tmp_path / "x.safetensors", a=torch.ones(5), b=tensor)
    view = {view.name: view for view in read_header(file)}["b"]
    assert (view.dtype, view.shape, view.n_elements, view.n_bytes) == ("I64", (2, 3), 6, 48)
    content = view.file.read_bytes()[view.start : view.start + view.n_bytes]
    assert torch.equal(torch.frombuffer(bytearray(content), dtype=torch.int64).reshape(2, 3), tensor)


def test_a_scalar_has_one_element(tmp_path: Path):
    (view,) = read_header(write_safetensors(tmp_path / "x.safetensors", scale=torch.tensor(2.0)))
    assert (view.n_elements, view.n_bytes) == (1, 4)


def test_a_component_stands_in_front_of_the_name_but_not_in_the_file(tmp_path: Path):
    (view,) = read_header(write_safetensors(tmp_path / "x.safetensors", w=torch.ones(1)), "2_Dense")
    assert (view.name, view.component, view.name_in_file) == ("2_Dense/w", "2_Dense", "w")


@pytest.mark.parametrize(
    ("dtype", "asked", "expected"),
    [("F32", "bfloat16", "BF16"), ("F16", "base", "F16"), ("I64", "bfloat16", "I64"), ("BF16", "float32", "F32")],
)
def test_only_floating_tensors_take_the_outputs_dtype(dtype: str, asked: str, expected: str):
    assert dtype_in_output(TensorView("w", dtype, (1,), Path("x"), 0), asked) == expected


def test_quantised_numbers_are_refused_with_the_reason(tmp_path: Path):
    entry = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
    file = write_raw(tmp_path / "x.safetensors", {"w": entry}, b"12")
    with pytest.raises(CheckpointError, match="'w' has dtype F8_E4M3, which holds quantised or unknown numbers"):
        list(read_header(file))


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path):
    file = write_safetensors(tmp_path / "x.safetensors", w=torch.ones(100))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"should fill 400 bytes up to .* its copy was cut short"):
        list(read_header(file))


def test_a_range_that_does_not_fit_the_shape_is_refused(tmp_path: Path):
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}
    file = write_raw(tmp_path / "x.safetensors", {"w": entry}, bytes(12))
    with pytest.raises(CheckpointError, match=r"should fill 12 bytes .* gives it 8"):
        list(read_header(file))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
        "nonsense",
    ],
)
def test_an_entry_that_cannot_be_is_refused(tmp_path: Path, entry: Any):
    file = write_raw(tmp_path / "x.safetensors", {"w": entry}, bytes(8))
    with pytest.raises(CheckpointError, match="says of tensor 'w' what cannot be"):
        list(read_header(file))


def test_other_files_are_not_taken_for_safetensors(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"\0" * 20)
    with pytest.raises(CheckpointError, match=r"no safetensors file .header of 0 bytes"):
        list(read_header(file))
    file.write_bytes((30).to_bytes(8, "little") + b"{this is no JSON")
    with pytest.raises(CheckpointError, match="the safetensors header cannot be read"):
        list(read_header(file))
    with pytest.raises(CheckpointError, match="no JSON object but list"):
        list(read_header(write_raw(file, [])))
