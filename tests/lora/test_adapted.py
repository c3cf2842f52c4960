"""A base with an adapter, in a module, against the merged model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import save_decoder
from transformers import AutoModelForCausalLM

from tasks.checkpoint import read_tensor_views
from tasks.errors import CheckpointError
from tasks.lora.adapted import LowRank, read_adapted_tensors
from tasks.lora.adapter import LowRankChange, read_adapter
from tasks.tensors import read_header


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """LoRA of rank 2 on two matrices of the tiny decoder."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(3)
    shapes = {"layers.0.self_attn.q_proj": (16, 16), "layers.1.mlp.down_proj": (16, 24)}
    tensors = {}
    for module, (rows, columns) in shapes.items():
        tensors[f"base_model.model.model.{module}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"base_model.model.model.{module}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def loss_of(module, tokens):
    with torch.no_grad():
        return module(tokens, labels=tokens).loss.item()


def test_a_streamed_adapter_scores_as_the_written_merge_and_the_base_comes_back(tmp_path: Path, adapter: Path):
    base = save_decoder(tmp_path / "base", 1)
    tokens = torch.tensor([[1, 4, 7, 9, 3, 5]])
    module = AutoModelForCausalLM.from_pretrained(base)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    plain = loss_of(module, tokens)
    places = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in read_adapted_tensors(base, adapter):
            places[name].copy_(tensor)
    streamed = loss_of(module, tokens)

    merged = AutoModelForCausalLM.from_pretrained(base)
    factors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for name in ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"):
            a, b = (factors[f"base_model.model.model.{name}.lora_{factor}.weight"] for factor in "AB")
            merged.model.get_submodule(name).weight += b @ a * 2  # alpha / rank
    merged.save_pretrained(tmp_path / "merged")
    assert streamed == pytest.approx(
        loss_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tokens), rel=1e-6
    )
    assert abs(streamed - plain) > 0.01

    with torch.no_grad(), safe_open(base / "model.safetensors", "pt") as file:
        for name in file.keys():
            places[name].copy_(file.get_tensor(name))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_names_and_order_are_the_bases_and_only_changed_tensors_are_widened(tmp_path: Path, adapter: Path):
    base = save_decoder(tmp_path / "base", 1, dtype=torch.bfloat16)
    tensors = dict(read_adapted_tensors(base, adapter))
    assert list(tensors) == list(read_tensor_views(base))
    wide = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    assert wide == {"model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"}


@pytest.mark.parametrize("is_transposed", [True, False])
def test_rows_come_out_alike_however_they_are_cut(tmp_path: Path, is_transposed: bool):
    generator = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(5, 137, generator=generator), "b": torch.randn(150, 5, generator=generator)}
    save_file(tensors, tmp_path / "m.safetensors")
    a, b = read_header(tmp_path / "m.safetensors", "")
    change = LowRankChange(a, b, 0.7, is_transposed)
    delta = tensors["b"].double() @ tensors["a"].double() * 0.7
    expected = delta.T if is_transposed else delta
    whole = torch.zeros(expected.shape)
    LowRank(change).add_to(whole, 0)
    torch.testing.assert_close(whole.double(), expected, rtol=1e-5, atol=1e-6)
    for step in (1, 7, 64, 70):
        parts, low_rank = torch.zeros(expected.shape), LowRank(change)
        for first in range(0, len(parts), step):
            low_rank.add_to(parts[first : first + step], first)
        assert torch.equal(parts, whole), step


def test_a_file_that_went_away_is_named(tmp_path: Path, adapter: Path):
    base = save_decoder(tmp_path / "base", 1)
    change = next(iter(read_adapter(adapter, read_tensor_views(base)).changes.values()))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: tensor '.*lora_A.*' cannot be read"):
        LowRank(change)
