"""Scoring against the package LM_Cocktail, two workers against one, and a score that the cache knows.

    python -m tests.benchmarks.bench_score --oracles FOLDER  # decoders of 60 M parameters; 1 GB of disk, 6 GB of memory
    python -m tests.benchmarks.bench_score --quick           # small, to see that it runs

Models are random Llamas in bfloat16 files, made on the spot, with the tokenizer of the bundled demo. They are compared
on the five rows of the package's own example data for ag_news, with the package's defaults: each side in a process of
its own with one thread, CPU seconds from the files to the losses without imports, and the most memory the process held,
imports included. `reference/README.md` says how the package's environment is made.

Workers score eight candidates on all 45 rows, wall time, with worker processes that have already scored another one.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from flows.direct import run_all
from tasks.cache import ResultCache
from tasks.checkpoint import SINGLE_FILE, describe_folder
from tasks.data.examples import describe_examples, read_rows
from tasks.devices import open_devices
from tasks.digests import hash_file
from tasks.losses.measure import measure_losses
from tasks.records import Checkpoint, ExampleSet
from tasks.score.candidate import score_candidate
from tasks.settings import ScoreSettings
from tests.benchmarks.processes import ONE_THREAD, describe_machine, own_peak, run_module, run_reference

RESULTS = Path(__file__).with_name("SCORING.md")
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests/parity/llm_examples.json"
TOKENIZER = ROOT / "deployments/demo/models/decoder/base"
N_COMPARED = 3
"""Models of the package's own example: the base and two fine-tunes."""
N_PARALLEL = 8
N_CACHED = 50
_LARGE = {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
_SMALL = {"vocab_size": 5_120, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is scored."""

    models: list[Checkpoint]
    few: ExampleSet
    """For the comparison."""
    many: ExampleSet


def write_models(folder: Path, sizes: dict[str, int]) -> list[Checkpoint]:
    """A random base, fine-tunes of it, and one more that only warms up."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_attention_heads": 8, "max_position_embeddings": 2048, **sizes}
    # The tokens of the demo's tokenizer.
    config = LlamaConfig(tie_word_embeddings=False, bos_token_id=2, eos_token_id=3, pad_token_id=0, **settings)
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder / "model0", max_shard_size="100GB")
    _write_tokenizer(folder / "model0")
    tensors = load_file(folder / "model0" / SINGLE_FILE)
    for number in range(1, N_PARALLEL + 1):
        other = shutil.copytree(folder / "model0", folder / f"model{number}")
        changed = {name: tensor + 0.001 * torch.randn_like(tensor) for name, tensor in tensors.items()}
        save_file(changed, other / SINGLE_FILE, metadata={"format": "pt"})
    return [_describe(folder / f"model{number}") for number in range(N_PARALLEL + 1)]


def _write_tokenizer(folder: Path) -> None:
    shutil.copy(TOKENIZER / "tokenizer.json", folder)
    content = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    # A class that transformers 4 knows, too; and more tokens, as the package pads to its own limit.
    content |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def _describe(folder: Path) -> Checkpoint:
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    return describe_folder(folder.name, str(folder), folder, files)


def write_examples(folder: Path) -> tuple[ExampleSet, ExampleSet]:
    """The package's rows: those of ag_news, and all."""
    by_task: dict[str, list[dict[str, str]]] = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    found: list[ExampleSet] = []
    for name, rows in (("few", by_task["ag_news"]), ("many", list(chain(*by_task.values())))):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found.append(describe_examples(path, read_rows(path, "decoder")))
    return found[0], found[1]


def score_in_process(loss: Any, examples: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """What `reference/score_lm_cocktail.py` prints, of our scoring in this process."""
    # An import, which is not what is measured.
    import transformers.models.llama.modeling_llama  # noqa: F401

    rows, settings = read_rows(examples, "decoder"), ScoreSettings(loss=loss)
    torch.set_num_threads(1)
    started = time.process_time()
    losses = [statistics.fmean(measure_losses(folder, "decoder", rows, settings, "cpu")[0]) for folder in folders]
    seconds = time.process_time() - started
    return {"cpu_seconds": seconds, "peak_kib": own_peak(), "losses": losses}


def compare(inputs: Inputs, oracles: Path, repeats: int) -> tuple[list[str], str]:
    """Lines of the table on CPU time and memory, and a sentence on the losses; both sides in turns."""
    examples, folders = _path(inputs.few), [str(model.folder) for model in inputs.models[:N_COMPARED]]

    def run_ours(loss: str) -> Any:
        return run_module("tests.benchmarks.bench_score", "--process", loss, examples, *folders, environment=ONE_THREAD)

    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: run_ours("default"),
        "same numbers": lambda: run_ours("lm_cocktail"),
        "theirs": lambda: run_reference(oracles, "lm_cocktail", "score_lm_cocktail.py", examples, *folders),
    }
    found: dict[str, list[Any]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            found[side].append(run())
    seconds = {side: statistics.median(each["cpu_seconds"] for each in runs) for side, runs in found.items()}
    memory = {side: statistics.median(each["peak_kib"] for each in runs) / 1024 for side, runs in found.items()}
    pairs = zip(found["same numbers"][0]["losses"], found["theirs"][0]["losses"], strict=True)
    furthest = max(abs(ours - theirs) for ours, theirs in pairs)
    name = f"{N_COMPARED} candidates"
    lines = [
        _line(f"{name}, CPU seconds", seconds["ours"], seconds["theirs"], ".2f", ">= 20x less"),
        _line(f"{name}, CPU seconds, `loss: lm_cocktail`", seconds["same numbers"], seconds["theirs"], ".2f", ""),
        _line(f"{name}, peak memory in MiB", memory["ours"], memory["theirs"], ".0f", ">= 4x less"),
    ]
    return lines, f"With `loss: lm_cocktail` the losses of both differ by {furthest:.1e} at most."


def compare_workers(inputs: Inputs, repeats: int) -> str:
    """A line of the table: two workers against one, in turns; every score into a cache of its own."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for n_workers, found in seconds.items():
            found.append(_score_all(inputs, [f"cpu:{index}" for index in range(n_workers)]))
    one, two = (statistics.median(found) for found in seconds.values())
    return _line(f"{N_PARALLEL} candidates, seconds with 2 workers against 1", two, one, ".2f", ">= 1.7x faster")


def _score_all(inputs: Inputs, devices: list[str]) -> float:
    settings = ScoreSettings(devices=devices)
    with open_devices(devices), tempfile.TemporaryDirectory() as folder:
        cache = ResultCache(Path(folder))

        def score(model: Checkpoint, examples: ExampleSet) -> None:
            score_candidate(model, examples, "decoder", settings, cache)

        # As many calls at once as there are workers, so that each of them has imported all that scoring needs.
        _raise_first(run_all(lambda each: score(inputs.models[-1], each), [inputs.few, inputs.many][: len(devices)]))
        started = time.perf_counter()
        _raise_first(run_all(lambda model: score(model, inputs.many), inputs.models[:N_PARALLEL]))
        return time.perf_counter() - started


def _raise_first(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


def measure_cached(inputs: Inputs) -> str:
    """A line of the table: a score that is known."""
    settings, seconds = ScoreSettings(devices=["cpu:0"]), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(N_CACHED + 1):
            started = time.perf_counter()
            # A cache that was opened anew, as by another run.
            score_candidate(inputs.models[0], inputs.few, "decoder", settings, ResultCache(Path(folder)))
            seconds.append(time.perf_counter() - started)
    return f"| a cached candidate, milliseconds | {1000 * statistics.median(seconds[1:]):.1f} | | | < 50 |"


def _path(examples: ExampleSet) -> str:
    return examples.uri.removeprefix("file://")


def _line(name: str, ours: float, other: float, form: str, goal: str) -> str:
    return f"| {name} | {ours:{form}} | {other:{form}} | {other / ours:.1f}x | {goal} |"


def main() -> None:
    """Measure, print the table and write it down."""
    parser = argparse.ArgumentParser(description="Scoring against LM_Cocktail.")
    parser.add_argument("--oracles", type=Path, help="folder of environments, see reference/README.md")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--folder", type=Path, help="where the files go; left out: the folder for temporary files")
    parser.add_argument("--quick", action="store_true", help="small models, 1 run, nothing written down")
    parser.add_argument("--process", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        loss, examples, *folders = arguments.process
        json.dump(score_in_process(loss, Path(examples), [Path(folder) for folder in folders]), sys.stdout)
        return
    repeats, sizes = (1, _SMALL) if arguments.quick else (arguments.repeats, _LARGE)
    table = ["| scoring | ours | other | ratio | goal |", "|---|---|---|---|---|"]
    notes = ["Other: LM_Cocktail in its own environment; one worker. Not measured without `--oracles`."]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-score-") as temporary:
        folder = Path(temporary)
        inputs = Inputs(write_models(folder, sizes), *write_examples(folder))
        if arguments.oracles:
            lines, sentence = compare(inputs, arguments.oracles, repeats)
            table += lines
            notes = ["Other: LM_Cocktail in its own environment; one worker.", sentence]
        table += [compare_workers(inputs, repeats), measure_cached(inputs)]
    n_parameters = inputs.models[0].files[SINGLE_FILE].size / 2e6
    title = (
        f"Decoders of {n_parameters:.0f} M parameters, medians of {repeats} ({N_CACHED} of the cached). "
        f"{describe_machine()}."
    )
    text = "\n".join([title, "", *table, "", *notes, ""])
    sys.stdout.write(text)
    if not arguments.quick:
        # Without the folders, which are of this machine only.
        command = f"python -m tests.benchmarks.bench_score --repeats {repeats}"
        command += " --oracles FOLDER" if arguments.oracles else ""
        RESULTS.write_text(f"# Scoring\n\n`{command}`\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
