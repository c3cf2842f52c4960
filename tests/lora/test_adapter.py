"""Adapters written by hand, against what PEFT's documentation says of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tasks.errors import CheckpointError
from tasks.lora.adapter import other_base, read_adapter
from tasks.tensors import TensorView

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "base_model_name_or_path": "org/base"}
Q = "base_model.model.model.layers.0.q_proj"
PAIR = {f"{Q}.lora_A.weight": torch.ones(2, 3), f"{Q}.lora_B.weight": torch.ones(5, 2)}
BASE = {
    "model.layers.0.q_proj.weight": (5, 3),
    "model.layers.0.k_proj.weight": (5, 3),
    "model.layers.0.o_proj.weight": (4, 4),
    "model.embed.weight": (7, 3),
    "model.ids": (7,),
}
VIEWS = {name: TensorView(name, "I64" if name == "model.ids" else "BF16", shape, Path("b"), 0)
         for name, shape in BASE.items()}  # fmt: skip

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an adapter: tensors, and changes of `CONFIG`."""

    def run(tensors: Mapping[str, Tensor] = PAIR, **changes: Any) -> Path:
        (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
        save_file(dict(tensors), tmp_path / "adapter_model.safetensors")
        return tmp_path

    return run


def renamed(names: Mapping[str, str]) -> dict[str, TensorView]:
    return {new: replace(VIEWS[old], name=new) for old, new in names.items()}


def problem(folder: Path, base: Mapping[str, TensorView] = VIEWS) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_adapter(folder, base)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_change_is_found_with_its_rank_and_scaling(write: Write):
    adapter = read_adapter(write(), VIEWS)
    (change,) = adapter.changes.values()
    assert set(adapter.changes) == {"model.layers.0.q_proj.weight"} and not adapter.replaced
    assert (change.rank, change.scaling, change.is_transposed) == (2, 2.0, False)
    assert adapter.base_model == "org/base"


def test_the_adapters_name_in_old_files_does_not_matter(write: Write):
    old = {name.replace(".weight", ".default.weight"): tensor for name, tensor in PAIR.items()}
    assert read_adapter(write(old), VIEWS).changes.keys() == {"model.layers.0.q_proj.weight"}


def test_tensors_that_were_trained_whole_replace_the_bases(write: Write):
    for middle in ("", ".modules_to_save", ".modules_to_save.default", ".base_layer"):
        name = f"base_model.model.model.embed{middle}.weight"
        adapter = read_adapter(write({name: torch.ones(7, 3)}), VIEWS)
        assert adapter.replaced["model.embed.weight"].name == name and not adapter.changes


def test_an_embedding_is_changed_by_its_columns(write: Write):
    name = "base_model.model.model.embed.lora_embedding_"
    (change,) = read_adapter(
        write({f"{name}A": torch.ones(2, 7), f"{name}B": torch.ones(3, 2)}), VIEWS
    ).changes.values()
    assert change.is_transposed
    turned = {f"{name}A": torch.ones(2, 3), f"{name}B": torch.ones(7, 2)}
    assert "changes a tensor of shape [3, 7]; the base's 'model.embed.weight' has [7, 3]" in problem(write(turned))


@pytest.mark.parametrize("is_transposed", [True, False])
def test_of_a_square_matrix_the_configuration_says_how_it_lies(write: Write, is_transposed: bool):
    name = "base_model.model.model.layers.0.o_proj.lora_"
    square = {f"{name}A.weight": torch.ones(2, 4), f"{name}B.weight": torch.ones(4, 2)}
    (change,) = read_adapter(write(square, fan_in_fan_out=is_transposed), VIEWS).changes.values()
    assert change.is_transposed == is_transposed
    if is_transposed:
        assert "o_proj: it is square" in problem(write({**PAIR, **square}, fan_in_fan_out=True))


def test_a_part_in_front_of_all_names_may_be_missing_on_either_side(write: Write):
    shorter = renamed({name: name.removeprefix("model.") for name in VIEWS})
    assert read_adapter(write(), shorter).changes.keys() == {"layers.0.q_proj.weight"}
    longer = renamed({name: f"net.{name}" for name in VIEWS})
    assert read_adapter(write(), longer).changes.keys() == {"net.model.layers.0.q_proj.weight"}
    both = {**longer, "other.model.layers.0.q_proj.weight": VIEWS["model.layers.0.q_proj.weight"]}
    assert "the base has no tensor 'model.layers.0.q_proj.weight'" in problem(write(), both)


def test_every_tensor_that_does_not_fit_is_listed(write: Write):
    message = problem(
        write(
            {
                **PAIR,
                f"{Q}.lora_magnitude_vector": torch.ones(5),
                "base_model.model.model.layers.9.q_proj.lora_A.weight": torch.ones(2, 3),
                "base_model.model.lm_head.weight": torch.ones(7, 3),
                "base_model.model.model.layers.0.k_proj.lora_A.weight": torch.ones(2, 3),
                "base_model.model.model.layers.0.o_proj.lora_A.weight": torch.ones(3, 4),
                "base_model.model.model.layers.0.o_proj.lora_B.weight": torch.ones(4, 2, 1, 1),
                "base_model.model.model.embed.weight": torch.ones(8, 3),
            }
        )
    )
    for part in (
        "lora_magnitude_vector: this is no matrix of plain LoRA",
        "model.layers.9.q_proj: the base has no tensor 'model.layers.9.q_proj.weight'",
        "the base has no tensor 'lm_head.weight'; its head is tied to the embeddings",
        "model.layers.0.k_proj: lora_B is missing",
        "lora_A.weight: expected floating numbers of rank 2, found shape [3, 4] (F32)",
        "found shape [4, 2, 1, 1]; it is a convolution, which is not supported",
        "expected floating shape [7, 3], as the base has it, found [8, 3] (F32)",
    ):
        assert part in message, part


def test_matrices_cut_by_sharded_training_and_of_another_width_are_refused(write: Write):
    cut = {**PAIR, f"{Q}.lora_A.weight": torch.ones(0)}
    assert "found shape [0]; it is cut, as by sharded training" in problem(write(cut))
    wide = {**PAIR, f"{Q}.lora_A.weight": torch.ones(2, 4)}
    assert "q_proj: the adapter changes a tensor of shape [5, 4]" in problem(write(wide))
    assert "expected floating numbers" in problem(write({name: tensor.int() for name, tensor in PAIR.items()}))


def test_pickles_are_not_read(write: Write):
    folder = write()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "there is no adapter_model.safetensors; of adapters only safetensors are read" in problem(folder)


def test_another_base_on_the_hub_is_told(write: Write):
    adapter = read_adapter(write(), VIEWS)
    assert "was trained on org/base, and the recipe adds it to org/other" in str(other_base(adapter, "org/other@v2"))
    for same in ("Org/Base", "hub://org/base@main", "./base", "/models/base", "s3://models/base"):
        assert other_base(adapter, same) is None, same
