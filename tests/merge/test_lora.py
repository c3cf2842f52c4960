"""LoRA candidates in a merge. What PEFT itself gives lies in tests/parity/lora; see make_lora_expected.py there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_models import BASES, save_base
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.checkpoint import read_tensor_views
from tasks.lora.adapter import Adapter, read_adapter
from tasks.merge.lora import LoraSource
from tasks.merge.row_maps import RowMappedSource, Rows
from tasks.merge.sources import FileSource, TensorSource, describe, extra_elements, reading_anywhere

EXPECTED = Path(__file__).parents[1] / "parity" / "lora"


def read_whole(source: TensorSource, name: str, step: int = 10**9) -> Tensor:
    view = describe(source, name)
    buffer = memoryview(bytearray(8 * (min(step, view.n_elements) + extra_elements(source, name))))
    with reading_anywhere(source, name) as read:
        starts = range(0, view.n_elements, step)
        blocks = [read(start, min(step, view.n_elements - start), buffer).tensor().clone() for start in starts]
    return torch.cat(blocks).reshape(view.shape)


@pytest.mark.parametrize("case", BASES)
def test_every_tensor_is_what_pefts_own_merge_gives(case: str, tmp_path: Path):
    base = FileSource("base", read_tensor_views(save_base(case, tmp_path / "base")))
    source = LoraSource("chat", base, read_adapter(EXPECTED / case, base.tensors))
    merged = load_file(EXPECTED / case / "merged.safetensors")
    assert source.adapter.changes and merged.keys() <= base.tensors.keys()
    stored = load_file(tmp_path / "base" / "model.safetensors")
    for name in base.tensors:
        found = read_whole(source, name)
        if name in merged:
            torch.testing.assert_close(found, merged[name], rtol=2**-22, atol=2**-24)
            assert torch.equal(read_whole(source, name, step=37), found)
        else:
            assert torch.equal(found, stored[name])


def write_adapter(folder: Path, base: FileSource) -> Adapter:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    factors = {"lora_A": torch.arange(24.0)[None] / 64, "lora_B": torch.ones(64, 1)}
    save_file(
        {f"base_model.model.embed.{name}.weight": tensor for name, tensor in factors.items()}
        | {"base_model.model.norm.weight": torch.full((24,), 5.0)},
        folder / "adapter_model.safetensors",
    )
    return read_adapter(folder, base.tensors)


@pytest.fixture
def tensors(random_tensors) -> dict[str, Tensor]:
    """Names as modules give them."""
    drawn = random_tensors(1, torch.bfloat16)
    return {"embed.weight": drawn["embed"], "norm.weight": drawn["norm"], "other.weight": drawn["layers.0.w"]}


def test_the_sum_is_not_rounded_to_the_bases_dtype(make_checkpoint, tensors: dict[str, Tensor], tmp_path: Path):
    base = FileSource("base", read_tensor_views(make_checkpoint("base", tensors).folder))
    source = LoraSource("chat", base, write_adapter(tmp_path / "lora", base))
    found = read_whole(source, "embed.weight")
    assert found.dtype == torch.float32
    assert torch.equal(found, tensors["embed.weight"].float() + torch.arange(24.0) / 64)
    assert torch.equal(read_whole(source, "norm.weight"), torch.full((24,), 5.0))
    assert read_whole(source, "other.weight").dtype == torch.bfloat16
    view = source.describe("embed.weight")
    assert view is not None and (view.dtype, view.file.name) == ("F32", "adapter_model.safetensors")
    assert source.whole_rows("embed.weight") and not source.whole_rows("norm.weight")
    assert source.describe("none") is None


@pytest.mark.parametrize("block_elements", [16, 100, 1000])
def test_a_merge_streams_it_with_the_same_bytes_for_every_block_size(
    make_checkpoint, stream, tensors: dict[str, Tensor], tmp_path: Path, block_elements: int
):
    checkpoint = make_checkpoint("base", tensors)
    adapter = write_adapter(tmp_path / "lora", FileSource("base", read_tensor_views(checkpoint.folder)))

    def wrap(source: FileSource) -> LoraSource:
        return LoraSource("chat", source, adapter)

    whole = stream(checkpoint, wrap=wrap, dtype="float32", block_elements=10_000, n_threads=1)
    assert stream(checkpoint, wrap=wrap, dtype="float32", block_elements=block_elements) == whole
    (tmp_path / "merged.safetensors").write_bytes(whole)
    merged = load_file(tmp_path / "merged.safetensors")
    assert torch.equal(merged["embed.weight"], tensors["embed.weight"].float() + torch.arange(24.0) / 64)


def test_rows_of_changed_embeddings_can_be_looked_up_by_token(
    make_checkpoint, tensors: dict[str, Tensor], tmp_path: Path
):
    base = FileSource("base", read_tensor_views(make_checkpoint("base", tensors).folder))
    source = LoraSource("chat", base, write_adapter(tmp_path / "lora", base))
    backwards = Rows(np.array([0] + [1] * 63, np.int32), np.array([0, *range(63, 0, -1)], np.int64), {})
    mapped = RowMappedSource("chat", source, [base, source], backwards, {"embed.weight"})
    changed = read_whole(source, "embed.weight")
    expected = torch.cat([tensors["embed.weight"][:1].float(), changed[1:].flip(0)])
    assert torch.equal(read_whole(mapped, "embed.weight"), expected)
    assert torch.equal(read_whole(mapped, "embed.weight", step=100), expected)
