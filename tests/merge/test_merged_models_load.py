"""Merged folders in the libraries that will serve them, on tiny random models."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import AutoModelForCausalLM, BertConfig, BertModel, BertTokenizerFast, LlamaConfig, LlamaForCausalLM

from tasks.checkpoint import is_weight_file, list_model_files
from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint

_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world")


@pytest.fixture
def average(describe) -> Callable[..., Path]:
    """Merge two folders equally, in small shards; the folder of the result."""
    return partial(_average, describe)


def _average(
    describe: Callable[[str, Path], Checkpoint], first: Path, second: Path, output: Path, dtype: str = "base"
) -> Path:
    candidates = [describe("a", first), describe("b", second)]
    merge_checkpoints(
        candidates[0], candidates, {"a": 0.5, "b": 0.5}, method="linear", dtype=dtype, max_shard_bytes=20_000,
        template=candidates[0], output=output,
    )  # fmt: skip
    return output


def test_a_merged_decoder_loads_in_transformers(average, tmp_path: Path):
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    models: list[LlamaForCausalLM] = []
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        models.append(LlamaForCausalLM(config))
        models[-1].save_pretrained(tmp_path / name)
    output = average(tmp_path / "a", tmp_path / "b", tmp_path / "out", dtype="bfloat16")
    loaded, report = AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.dtype == torch.bfloat16
    assert len(list(output.glob("model-*.safetensors"))) > 1
    first, second = (model.state_dict() for model in models)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor.float(), (first[name] + second[name]) / 2, rtol=2**-8, atol=1e-9)


@pytest.fixture
def embedders(tmp_path: Path) -> list[Path]:
    """Two tiny sentence-transformers models with Pooling and Dense."""
    (tmp_path / "vocab.txt").write_text("\n".join(_WORDS))
    folders: list[Path] = []
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(_WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16,
        )  # fmt: skip
        BertModel(config).save_pretrained(tmp_path / f"bert-{name}")
        BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / f"bert-{name}")
        bert = modules.Transformer(str(tmp_path / f"bert-{name}"))
        model = SentenceTransformer(modules=[bert, modules.Pooling(16), modules.Dense(16, 8)], device="cpu")
        model.save(str(tmp_path / name), create_model_card=False)
        folders.append(tmp_path / name)
    return folders


def test_a_merged_embedder_keeps_its_files_and_merges_its_dense_layer(
    average, embedders: list[Path], load_all, tmp_path: Path
):
    output = average(*embedders, tmp_path / "out")
    others = [path for path in list_model_files(embedders[0]) if not is_weight_file(path)]
    assert [path for path in list_model_files(output) if not is_weight_file(path)] == others
    first, second, merged = (load_all(folder) for folder in (*embedders, output))
    dense = next(name for name in merged if name.startswith("2_Dense/") and name.endswith("weight"))
    torch.testing.assert_close(merged[dense], (first[dense] + second[dense]) / 2)
    model = SentenceTransformer(str(output), device="cpu")
    assert model.encode(["hello world"]).shape == (1, 8)
    assert json.loads((output / "modules.json").read_text())[2]["path"] == "2_Dense"
