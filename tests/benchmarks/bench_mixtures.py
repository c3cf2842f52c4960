"""How long trying merge weights in memory takes, against the forward passes that it cannot do without.

    python -m tests.benchmarks.bench_mixtures          # four decoders of 110 M parameters, 100 mixtures; 3 GB of disk
    python -m tests.benchmarks.bench_mixtures --quick  # small, to see that it runs

In turns on the same module: one forward pass over the examples (the losses of whatever is in the module), then one
mixture (weights in, losses out: the tensors are combined and the same pass is made). So a busy machine slows both.
Rows differ in the method, the dtype of the candidates' files, and in whether their tensors are held in memory or read
from their files for every mixture. GB/s is what combining alone reads and writes; below the table is what copying does.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.checkpoint import SINGLE_FILE, describe_folder
from tasks.data.examples import describe_examples, read_rows
from tasks.losses.measure import measure_resident
from tasks.mixtures.mixing import Mixing
from tasks.mixtures.space import MixtureSpace, open_mixtures
from tasks.records import Checkpoint, ExampleSet, FileDigest
from tasks.settings import ScoreSettings
from tests.benchmarks.processes import describe_machine

RESULTS = Path(__file__).with_name("MIXTURES.md")
GOAL = "<= 1.3x"
N_CANDIDATES = 4
INPUT_TOKENS, OUTPUT_TOKENS = 96, 32
_VOCABULARY = {f"w{number}": number for number in range(32_000)}
_LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
_SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    method: Literal["linear", "task_arithmetic"]
    dtype: str
    """Of the candidates' files."""
    is_held: bool = True
    goal: str = ""


CASES = (
    Case("linear", "linear", "float32", goal=GOAL),
    Case("linear, bfloat16 files", "linear", "bfloat16", goal=GOAL),
    Case("linear, read from the page cache", "linear", "float32", is_held=False),
    Case("task_arithmetic, bfloat16 files", "task_arithmetic", "bfloat16", goal=GOAL),
)


def write_models(folder: Path, sizes: dict[str, int], dtype: str) -> list[Checkpoint]:
    """A base and four fine-tunes of it."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, **sizes}
    config = LlamaConfig(vocab_size=len(_VOCABULARY), tie_word_embeddings=True, **settings)
    base = folder / f"base-{dtype}"
    model: Any = LlamaForCausalLM(config)
    model.to(_DTYPES[dtype]).save_pretrained(base, max_shard_size="100GB")
    backend = Tokenizer(WordLevel(_VOCABULARY, unk_token="w0"))
    backend.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0").save_pretrained(base)
    tensors = load_file(base / SINGLE_FILE)
    models = [_describe("base", base)]
    for number in range(N_CANDIDATES):
        other = shutil.copytree(base, folder / f"expert{number}-{dtype}")
        changed = {name: tensor + 0.001 * torch.randn_like(tensor) for name, tensor in tensors.items()}
        save_file(changed, other / SINGLE_FILE, metadata={"format": "pt"})
        models.append(_describe(f"expert{number}", other))
    return models


def _describe(name: str, folder: Path) -> Checkpoint:
    # Of the files only the size is needed here; hashing them would take longer than the benchmark.
    files = {path.name: FileDigest("0" * 64, path.stat().st_size) for path in folder.iterdir()}
    return describe_folder(name, str(folder), folder, files)


def write_examples(path: Path, n_examples: int) -> ExampleSet:
    """Rows of about 128 tokens, as in a recipe."""
    draw = torch.Generator().manual_seed(0)

    def text(n_tokens: int) -> str:
        numbers = torch.randint(2, len(_VOCABULARY), (n_tokens,), generator=draw)
        return " ".join(f"w{number}" for number in numbers.tolist())

    rows = [{"input": text(INPUT_TOKENS), "output": text(OUTPUT_TOKENS)} for _ in range(n_examples)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return describe_examples(path, read_rows(path, "decoder"))


def weights_in_turn(n: int) -> Iterator[dict[str, float]]:
    """Shares that sum to 1, never the same."""
    for number in range(n):
        shares = [1.0 + (number + 1) * index for index in range(N_CANDIDATES)]
        yield {f"expert{index}": share / sum(shares) for index, share in enumerate(shares)}


def measure_case(case: Case, models: list[Checkpoint], examples: ExampleSet, n_mixtures: int) -> str:
    """A line of the table."""
    mixing = Mixing(
        models[0], tuple(models[1:]), case.method, None, 1.0, "decoder", examples, None, ScoreSettings(max_length=512)
    )  # fmt: skip
    rows = read_rows(Path(examples.uri.removeprefix("file://")), "decoder")
    seconds: dict[str, list[float]] = {"pass": [], "mixture": [], "mix": []}
    with open_mixtures("cpu", mixing, held_bytes=None if case.is_held else 0) as space:
        # The first of each warms up and is not counted.
        for number, weights in enumerate(weights_in_turn(n_mixtures + 1)):
            for kind, elapsed in _take_turns(space, mixing, rows, weights).items():
                seconds[kind] += [elapsed] if number else []
        n_bytes = _moved_bytes(space, case)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    ratio = sum(seconds["mixture"]) / sum(seconds["pass"])
    return (
        f"| {case.name} | {medians['mixture']:.3f} | {medians['pass']:.3f} | {ratio:.2f}x | {case.goal} "
        f"| {medians['mix']:.3f} | {n_bytes / medians['mix'] / 1e9:.1f} |"
    )


def _take_turns(
    space: MixtureSpace, mixing: Mixing, rows: list[dict[str, object]], weights: dict[str, float]
) -> dict[str, float]:
    """Seconds of a forward pass, of a whole mixture, and of combining alone."""
    started = time.perf_counter()
    measure_resident(space.module.model, "decoder", rows, mixing.score)
    passed = time.perf_counter()
    space.measure(weights)
    measured = time.perf_counter()
    space.mix({name: 1 / N_CANDIDATES for name in weights})
    mixed = time.perf_counter()
    return {"pass": passed - started, "mixture": measured - passed, "mix": mixed - measured}


def _moved_bytes(space: MixtureSpace, case: Case) -> int:
    """What combining reads once and writes once."""
    n_inputs = N_CANDIDATES + (case.method == "task_arithmetic")
    model: Any = space.module.model
    n_elements = sum(parameter.numel() for parameter in model.model.parameters())
    return n_elements * (n_inputs * _DTYPES[case.dtype].itemsize + 4)


def copy_speed() -> float:
    """GB/s that torch reads and writes when it copies memory far larger than the cache."""
    source = torch.zeros(50_000_000)
    target, seconds = torch.empty_like(source), []
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - started)
    return 2 * source.nbytes / statistics.median(seconds) / 1e9


def main() -> None:
    """Measure in turns, print the table and write it down."""
    parser = argparse.ArgumentParser(description="Mixtures in memory against forward passes.")
    parser.add_argument("--mixtures", type=int, default=100, help="mixtures of each row")
    parser.add_argument("--folder", type=Path, help="where the files go; left out: the folder for temporary files")
    parser.add_argument("--only", default="", help="only rows whose name begins so")
    parser.add_argument(
        "--quick", action="store_true", help="small models, 8 examples, 3 mixtures, nothing written down"
    )
    arguments = parser.parse_args()
    n_mixtures, n_examples, sizes = (3, 8, _SMALL) if arguments.quick else (arguments.mixtures, 64, _LARGE)
    lines = [
        "| mixture of 4 | seconds | forward pass | ratio | goal | combining alone | GB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-mixtures-") as temporary:
        folder, models = Path(temporary), dict[str, list[Checkpoint]]()
        examples = write_examples(folder / "examples.jsonl", n_examples)
        for case in [case for case in CASES if case.name.startswith(arguments.only)]:
            if case.dtype not in models:
                models[case.dtype] = write_models(folder, sizes, case.dtype)
            lines.append(measure_case(case, models[case.dtype], examples, n_mixtures))
        size = next(iter(models.values()))[0].size / 1e6
    title = (
        f"Files of up to {size:.0f} MB, {examples.n} examples of {INPUT_TOKENS + OUTPUT_TOKENS} tokens, {n_mixtures} "
        f"mixtures and as many forward passes in turns: medians, and the ratio of all together. "
        f"{describe_machine()}, {torch.get_num_threads()} threads."
    )
    text = "\n".join([title, "", *lines, "", f"Copying memory: {copy_speed():.1f} GB/s.", ""])
    sys.stdout.write(text)
    if not (arguments.quick or arguments.only):
        command = f"python -m tests.benchmarks.bench_mixtures --mixtures {n_mixtures}"
        RESULTS.write_text(f"# Mixtures in memory against forward passes\n\n`{command}`\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
