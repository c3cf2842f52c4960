"""Sentence embedders of every pooling: a merge keeps all files, and the merged model is scored with its own pooling."""

import json
import math
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_encoder
from transformers import AutoModel, AutoTokenizer

import tasks.resident
from tasks.checkpoint import is_weight_file, list_model_files
from tasks.losses.encoder import encoder_losses
from tasks.merge.merge import merge_checkpoints
from tasks.resident import resident_encoder

ROWS = [
    {"query": "question a", "pos": ["yes"], "neg": ["no b c"]},
    {"query": "topic", "pos": ["answer d", "e"], "neg": ["a b c d e"]},
]


@dataclass(frozen=True)
class Embedder:
    pooling: str
    normalize: bool = False
    dense: bool = False
    prompts: dict[str, str] = field(default_factory=dict)


EMBEDDERS = [
    Embedder("cls", normalize=True, prompts={"query": "query: ", "document": "document: "}),
    Embedder("cls"),
    Embedder("mean", dense=True),
    Embedder("mean", normalize=True, prompts={"query": "question ", "document": ""}),
    Embedder("lasttoken", normalize=True),
    Embedder("lasttoken", dense=True, prompts={"query": "query: ", "document": "document: "}),
]


@pytest.fixture(params=EMBEDDERS, ids=lambda embedder: f"{embedder.pooling}-{embedder.normalize}-{embedder.dense}")
def embedder(request):
    return request.param


@pytest.fixture
def merged(embedder, describe, tmp_path):
    """The folder of 0.3 x a + 0.7 x b, both beside it."""
    options = {name: getattr(embedder, name) for name in ("pooling", "normalize", "dense", "prompts")}
    models = [describe(name, save_encoder(tmp_path / name, seed, **options)) for seed, name in enumerate("ab")]
    merge_checkpoints(
        models[0], models, {"a": 0.3, "b": 0.7}, method="linear", dtype="base", max_shard_bytes=10**9,
        template=models[0], output=tmp_path / "merged",
    )  # fmt: skip
    yield tmp_path / "merged"
    tasks.resident._slots.clear()


def plain_vector(embedder, folder, kind, text):
    """By transformers alone: one text, unpadded; pooling, Dense (with tanh) and length written out."""
    inputs = AutoTokenizer.from_pretrained(folder)(embedder.prompts.get(kind, "") + text, return_tensors="pt")
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state[0]
        vector = {"cls": tokens[0], "mean": tokens.mean(0), "lasttoken": tokens[-1]}[embedder.pooling]
        if embedder.dense:
            dense = load_file(folder / "2_Dense" / "model.safetensors")
            vector = torch.tanh(dense["linear.weight"] @ vector + dense["linear.bias"])
    # Cosines do not see lengths, so what Normalize does is not seen here either.
    return vector / vector.norm()


def plain_loss(positive, negatives):
    """-log softmax of a cosine among itself and the negatives', at temperature 0.05."""
    return -math.log(math.exp(positive / 0.05) / sum(math.exp(cosine / 0.05) for cosine in (positive, *negatives)))


def test_no_file_is_lost_and_no_other_file_is_changed(merged, embedder):
    first = merged.parent / "a"
    files = list_model_files(first)
    assert list_model_files(merged) == files
    weight_files = [path for path in files if is_weight_file(path)]
    assert weight_files == (["2_Dense/model.safetensors"] if embedder.dense else []) + ["model.safetensors"]
    for path in files:
        if path not in weight_files:
            assert (merged / path).read_bytes() == (first / path).read_bytes(), path
    for path in weight_files:
        a, b, found = (load_file(folder / path) for folder in (first, merged.parent / "b", merged))
        assert found.keys() == a.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, 0.3 * a[name] + 0.7 * b[name], msg=f"{path} {name}")


def test_the_settings_of_a_merged_embedder_are_those_of_its_parts(merged, embedder):
    encoder = resident_encoder(merged, "float32", "cpu")
    kinds = [
        "Transformer",
        "Pooling",
        *["Dense"] * embedder.dense,
        *["Normalize"] * (embedder.dense or embedder.normalize),
    ]
    assert [type(module).__name__ for module in encoder] == kinds
    assert encoder[1].pooling_mode == embedder.pooling
    written = json.loads((merged / "config_sentence_transformers.json").read_text())["prompts"]
    assert {name: text for name, text in written.items() if text} == {n: t for n, t in embedder.prompts.items() if t}


def test_a_merged_embedder_is_scored_with_its_own_pooling_and_prompts(merged, embedder):
    losses, _ = encoder_losses(resident_encoder(merged, "float32", "cpu"), ROWS, batch_tokens=64, max_length=16)

    def cosines(row, texts):
        query = plain_vector(embedder, merged, "query", row["query"])
        return [float(query @ plain_vector(embedder, merged, "document", text)) for text in texts]

    first, second = ROWS
    positive, *others = cosines(first, ["yes", "no b c", "answer d", "e"])
    expected_first = plain_loss(positive, others)
    one, two, *others = cosines(second, ["answer d", "e", "a b c d e", "yes"])
    expected_second = (plain_loss(one, others) + plain_loss(two, others)) / 2
    assert losses == pytest.approx([expected_first, expected_second], abs=1e-4)
