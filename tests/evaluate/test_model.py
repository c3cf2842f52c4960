import json
import logging
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from small_adapters import save_merged, write_adapter

from tasks.cache import ResultCache
from tasks.checkpoint import describe_folder, list_model_files
from tasks.data.examples import describe_examples, read_rows
from tasks.digests import hash_file
from tasks.errors import InputError, NonFiniteError
from tasks.evaluate import model
from tasks.evaluate.model import evaluate_model, is_evaluated, measuring_conditions
from tasks.evaluation_settings import EvaluationTask
from tasks.records import Checkpoint, ExampleSet
from tasks.settings import ScoreSettings

TASK = EvaluationTask(name="colours", kind="classification", data="/unused")
SETTINGS = ScoreSettings(devices=["cpu:0"], max_length=64)


@pytest.fixture
def checkpoint(decoder_folder: Path) -> Checkpoint:
    return checkpoint_of(decoder_folder)


def checkpoint_of(folder: Path) -> Checkpoint:
    files = {path: hash_file(folder / path) for path in list_model_files(folder)}
    return describe_folder("expert", str(folder), folder, files)


@pytest.fixture
def data(tmp_path: Path) -> ExampleSet:
    rows = [{"input": f"w{number} w{number % 7}", "output": ["blue", "red"][number % 2]} for number in range(20)]
    path = tmp_path / "colours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return describe_examples(path, read_rows(path, "classification"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the devices; computed in this process, since workers have tests of their own."""
    made: list[tuple[Any, ...]] = []

    def call_here(setting: object, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        made.append((setting, arguments, options))
        return function("cpu", *arguments)

    monkeypatch.setattr(model, "call_on_device", call_here)
    return made


def test_an_evaluation_has_a_value_per_row(
    checkpoint: Checkpoint, data: ExampleSet, calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "tasks.evaluate"):
        found = evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS, ResultCache(tmp_path / "cache"))
    assert (found.task, found.model, found.metric, found.higher_is_better) == ("colours", "expert", "accuracy", True)
    assert len(found.values) == 20
    assert set(found.values) <= {0.0, 1.0}
    assert found.data_sha256 == data.sha256
    assert found.seconds > 0
    assert not found.cached
    (setting, _, options) = calls[0]
    assert setting == ["cpu:0"]
    assert options["timeout_seconds"] == SETTINGS.timeout_seconds
    assert "evaluated expert on colours: accuracy 0." in caplog.text


def test_equal_content_is_measured_once_whatever_it_is_called(
    checkpoint: Checkpoint, data: ExampleSet, calls: list[Any], tmp_path: Path
):
    cache = ResultCache(tmp_path / "cache")
    assert not is_evaluated(checkpoint, TASK, data, "decoder", SETTINGS, cache)
    first = evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS, cache)
    renamed = Checkpoint("champion", "release:x@y", "v1", "file:///elsewhere", checkpoint.files)
    other_batches = SETTINGS.model_copy(update={"batch_tokens": 7, "devices": "auto", "timeout_seconds": 1.0})
    assert is_evaluated(renamed, TASK, data, "decoder", other_batches, cache)
    second = evaluate_model(renamed, TASK.model_copy(update={"name": "again"}), data, "decoder", other_batches, cache)
    assert len(calls) == 1
    assert (second.values, second.seconds, second.cached) == (first.values, first.seconds, True)
    assert (second.model, second.task) == ("champion", "again")


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"max_length": 32}])
def test_what_may_change_values_is_measured_anew(
    change: dict[str, Any], checkpoint: Checkpoint, data: ExampleSet, calls: list[Any], tmp_path: Path
):
    cache = ResultCache(tmp_path / "cache")
    evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS, cache)
    assert not evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS.model_copy(update=change), cache).cached
    assert len(calls) == 2


def test_where_task_files_lie_is_no_condition_of_a_measurement():
    first, second = (
        measuring_conditions(EvaluationTask(name="t", kind="lm_eval", tasks=["t"], include_path=folder), SETTINGS)
        for folder in ("/a", "/b")
    )
    assert first == second == "engine 2, float32, at most 64 tokens, tasks ['t']"


def test_a_broken_model_is_named(data: ExampleSet, calls: list[Any], tmp_path: Path, decoder_folder: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in list_model_files(decoder_folder):
        (broken / path).write_bytes((decoder_folder / path).read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"expert on task 'colours': .*not finite"):
        evaluate_model(checkpoint_of(broken), TASK, data, "decoder", SETTINGS, ResultCache(tmp_path / "cache"))


def test_a_model_that_is_written_over_while_it_is_measured_is_refused_and_its_values_are_not_kept(
    data: ExampleSet, tmp_path: Path, decoder_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "expert"
    shutil.copytree(decoder_folder, folder)

    def call(_setting: object, function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        found = function("cpu", *arguments)
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
        return found

    monkeypatch.setattr(model, "call_on_device", call)
    planned, cache = checkpoint_of(folder), ResultCache(tmp_path / "cache")
    with pytest.raises(InputError, match=r"expert: .* changed since it was planned:\n  - config.json: planned sha256"):
        evaluate_model(planned, TASK, data, "decoder", SETTINGS, cache)
    assert not is_evaluated(planned, TASK, data, "decoder", SETTINGS, cache)


def test_a_metric_that_is_not_finite_is_neither_returned_nor_kept(
    checkpoint: Checkpoint, data: ExampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        model,
        "call_on_device",
        lambda *_, **__: {"values": {"accuracy": [1.0, math.nan]}, "labels": None, "seconds": 0.1},
    )
    cache = ResultCache(tmp_path / "cache")
    with pytest.raises(
        NonFiniteError, match="expert on task 'colours': accuracy is NaN or infinite on 1 of 2 examples"
    ):
        evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS, cache)
    assert not list(tmp_path.rglob("cache/results/**/*.json"))


def test_naming_the_measures_loads_nothing_heavy():
    code = "import sys, tasks.evaluate.model; print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_model_with_an_adapter_has_the_values_of_the_model_that_both_make(
    checkpoint: Checkpoint, data: ExampleSet, calls: list[Any], tmp_path: Path
):
    cache = ResultCache(tmp_path / "cache")
    lora = write_adapter(tmp_path / "lora", {"model.layers.1.mlp.down_proj": (16, 32)}, size=2.0)
    files = {path.name: hash_file(path) for path in lora.iterdir()}
    chat = replace(checkpoint, adapter=describe_folder("adapter", str(lora), lora, files))
    plain = evaluate_model(checkpoint, TASK, data, "decoder", SETTINGS, cache)
    assert not is_evaluated(chat, TASK, data, "decoder", SETTINGS, cache)
    found = evaluate_model(chat, TASK, data, "decoder", SETTINGS, cache)
    assert is_evaluated(chat, TASK, data, "decoder", SETTINGS, cache)
    merged = checkpoint_of(save_merged(checkpoint.folder, lora, tmp_path / "merged"))
    assert found.values == evaluate_model(merged, TASK, data, "decoder", SETTINGS, cache).values
    assert found.values != plain.values
