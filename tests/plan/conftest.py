"""Tiny checkpoints that differ from a base in one thing each."""

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manifests import minimal_manifest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tasks.cache import ResultCache
from tasks.digests import hash_file
from tasks.recipe import Recipe
from tasks.records import to_json
from tasks.registry.files import AliasState, encode_alias

Tensors = dict[str, NDArray[Any]]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "eos_token_id": 1,
}
TOKENS = ("[UNK]", "[EOS]", "yes", "no", "maybe", "is", "it", "late")


def random_tensors(seed: int) -> Tensors:
    """A model with random weights and, as every model has them, norms of one."""
    draw = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (64, 32), "lm_head.weight": (64, 32)}
    shapes |= {f"model.layers.{layer}.self_attn.q_proj.weight": (32, 32) for layer in range(2)}
    tensors: Tensors = {name: draw.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    return tensors | {f"model.layers.{layer}.input_layernorm.weight": np.ones(32, np.float32) for layer in range(2)}


def fine_tuned(tensors: Tensors, seed: int, size: float = 0.1) -> Tensors:
    """The same model after small random steps: every matrix is `size` away, relative to its length."""
    draw = np.random.default_rng(seed)
    return {name: (value + size * value.std() * draw.normal(size=value.shape)).astype(value.dtype)
            for name, value in tensors.items()}  # fmt: skip


def write_tokenizer(folder: Path, tokens: tuple[str, ...] = TOKENS) -> None:
    """A word-level tokenizer.json that numbers `tokens` in their order."""
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "[EOS]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))


def large_tensors(seed: int) -> Tensors:
    """As `random_tensors`, with embeddings of 1 MB, of which a plan reads a sample only."""
    wide = np.random.default_rng(seed + 100).normal(0, 0.02, (4096, 64)).astype(np.float32)
    return random_tensors(seed) | {"model.embed_tokens.weight": wide}


WriteModel = Callable[..., Path]
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a checkpoint below `tmp_path/models` and give its folder."""

    def write(
        name: str,
        tensors: Tensors | None = None,
        config: Mapping[str, Any] | None = None,
        tokens: tuple[str, ...] = TOKENS,
    ) -> Path:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        save_file(random_tensors(0) if tensors is None else tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(CONFIG | dict(config or {})))
        write_tokenizer(folder, tokens)
        return folder

    return write


@pytest.fixture
def family(write_model: WriteModel) -> dict[str, Path]:
    """A base and two fine-tunes of it."""
    base = random_tensors(0)
    return {
        "base": write_model("base", base),
        "news": write_model("news", fine_tuned(base, 1)),
        "law": write_model("law", fine_tuned(base, 2)),
    }


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    """An empty cache."""
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def make_recipe(family: dict[str, Path]) -> MakeRecipe:
    """A recipe that mixes the family in equal shares; `candidates` maps names to folders or to more settings."""

    def make(candidates: Mapping[str, Any] | None = None, **sections: Any) -> Recipe:
        given = family if candidates is None else candidates
        entries = [
            {"name": name, **(value if isinstance(value, dict) else {"model": str(value)})}
            for name, value in given.items()
        ]
        content: dict[str, Any] = {
            "name": "demo",
            "model_type": "decoder",
            "base": str(family["base"]),
            "weigh": {"strategy": "uniform"},
        }
        return Recipe.model_validate(content | {"candidates": entries} | sections)

    return make


@pytest.fixture
def large_family(write_model: WriteModel) -> dict[str, Path]:
    """As `family`, of a megabyte each."""
    base = large_tensors(0)
    return {
        "base": write_model("large-base", base),
        "news": write_model("large-news", fine_tuned(base, 1)),
        "law": write_model("large-law", fine_tuned(base, 2)),
    }


@pytest.fixture
def tensors() -> Any:
    """The two makers of weights above, for tests that change some."""
    return random_tensors, fine_tuned


class ReleaseWriter:
    """Writes a release of a model name, with the alias `champion` pointing at it, as the registry lays it out."""

    def __init__(self, destination: Path, write_model: WriteModel):
        self.destination = destination
        self._write_model = write_model

    def __call__(self, name: str, tensors: Tensors | None = None, version: str = "20260101-0123456789ab") -> str:
        model = self._write_model(f"release-of-{name}-{version}", tensors)
        folder = self.destination / name / "versions" / version
        folder.parent.mkdir(parents=True, exist_ok=True)
        model.rename(folder)
        (folder / "README.md").write_text("card")
        files = {path.name: to_json(hash_file(path)) for path in folder.iterdir()}
        manifest = {"name": name, **minimal_manifest(version, 1, "0" * 64, files)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        state = AliasState(version, "0" * 64, "2026-01-01", "test", "first", (), ())
        alias = self.destination / name / "aliases" / "champion.json"
        alias.parent.mkdir(exist_ok=True)
        alias.write_bytes(encode_alias(state))
        return version


@pytest.fixture
def release(tmp_path: Path, write_model: WriteModel) -> ReleaseWriter:
    """Write releases below `tmp_path/releases`."""
    return ReleaseWriter(tmp_path / "releases", write_model)


@pytest.fixture
def unused_address() -> str:
    """`host:port` at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
