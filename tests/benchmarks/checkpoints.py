"""Checkpoints for the benchmarks of merges: Llamas of real shapes that any package loads, of numbers or of holes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.checkpoint import SINGLE_FILE, describe_folder
from tasks.digests import hash_file
from tasks.merge.layout import plan_layout
from tasks.records import Checkpoint, FileDigest
from tasks.tensors import TensorView

if TYPE_CHECKING:
    import torch
else:
    from tasks import torch_when_used as torch

TOKENIZER = Path(__file__).parents[2] / "deployments/demo/models/decoder/base"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int
    intermediate: int
    vocabulary: int
    n_layers: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name to shape, in the order of the model."""
        square, wide = (self.hidden, self.hidden), (self.intermediate, self.hidden)
        layer: dict[str, tuple[int, ...]] = {f"self_attn.{part}_proj": square for part in "qkvo"}
        layer |= {"mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": wide[::-1]}
        layer |= {"input_layernorm": (self.hidden,), "post_attention_layernorm": (self.hidden,)}
        ends = {"model.embed_tokens.weight": (self.vocabulary, self.hidden), "model.norm.weight": (self.hidden,)}
        ends["lm_head.weight"] = (self.vocabulary, self.hidden)
        inner = {
            f"model.layers.{number}.{part}.weight": shape
            for number in range(self.n_layers)
            for part, shape in layer.items()
        }
        return ends | inner

    def views(self) -> dict[str, TensorView]:
        """The same as views of bfloat16 tensors without a place."""
        return {name: TensorView(name, "BF16", shape, Path(SINGLE_FILE), 0) for name, shape in self.tensors().items()}


def near(megabytes: int) -> Shape:
    """The shape of a decoder of 1 B parameters, with as many layers as give a file near the asked size."""
    empty, one = (_count_bytes(Shape(2048, 5632, 8192, n_layers)) for n_layers in (0, 1))
    return Shape(2048, 5632, 8192, max(1, round((megabytes * 1e6 - empty) / (one - empty))))


def _count_bytes(shape: Shape) -> int:
    return sum(view.n_bytes for view in shape.views().values())


def write_checkpoint(folder: Path, shape: Shape, seed: int) -> Checkpoint:
    """Random numbers in one file; all seeds are fine-tunes of seed 0."""
    (file,) = plan_layout(shape.views(), "base", 10**15).files
    largest = max(tensor.n_elements for tensor in file.tensors)
    numbers = _draw(largest, 0, 0.02)
    if seed:
        numbers += _draw(largest, seed, 0.001)
    content = numbers.bfloat16().view(torch.int16).numpy()
    write_other_files(folder, shape)
    with (folder / SINGLE_FILE).open("wb") as stream:
        stream.write(file.header)
        for tensor in file.tensors:
            stream.write(content[: tensor.n_elements].tobytes())
    return describe(folder)


def write_sparse(folder: Path, shape: Shape, max_shard_bytes: int) -> None:
    """Shards of headers and holes, which are read as zeros and take no room."""
    layout = plan_layout(shape.views(), "base", max_shard_bytes)
    write_other_files(folder, shape)
    for file in layout.files:
        with (folder / file.path).open("wb") as stream:
            stream.write(file.header)
            stream.truncate(file.size)
    for path, content in layout.indexes.items():
        (folder / path).write_bytes(content)


def write_other_files(folder: Path, shape: Shape) -> None:
    """Configuration, and the tokenizer of the bundled demo."""
    folder.mkdir()
    shutil.copy(TOKENIZER / "tokenizer.json", folder)
    tokenizer = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    # A class that transformers 4 knows, too.
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.hidden // 128, "num_key_value_heads": shape.hidden // 128,
        "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def describe(folder: Path) -> Checkpoint:
    """A checkpoint of one weight file."""
    # Of the weights only the size is needed here; hashing them would take longer than the benchmark.
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != SINGLE_FILE}
    files[SINGLE_FILE] = FileDigest("0" * 64, (folder / SINGLE_FILE).stat().st_size)
    return describe_folder(folder.name, str(folder), folder, files)


def _draw(n_elements: int, seed: int, deviation: float) -> torch.Tensor:
    return torch.randn(n_elements, generator=torch.Generator().manual_seed(seed)).mul_(deviation)
