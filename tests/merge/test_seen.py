"""What is read must not change while it is merged; what is made of it then is neither noted, nor reused, nor named."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_adapters import write_adapter

from tasks.cache import ResultCache
from tasks.checkpoint import describe_folder
from tasks.digests import hash_file
from tasks.errors import CheckpointError, InputError, ModelChangedError
from tasks.merge import blocks, outputs
from tasks.merge.journal import Journal
from tasks.merge.merge import merge_checkpoints, merge_many
from tasks.merge.seen import blaming_changes, prove_models, see_models
from tasks.merge_records import MergedModel
from tasks.records import Checkpoint
from tasks.resumable import may_be_mended

N_SHARDS = 6
N_ELEMENTS = 20_000
WEIGHTS = {"a": 0.25, "b": 0.75}
TOLD: dict[str, Any] = {"method": "linear", "dtype": "base", "max_shard_bytes": 4 * N_ELEMENTS}

Merge = Callable[..., MergedModel]


def draw(seed: int, n: int = N_SHARDS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{i}.w": torch.randn(N_ELEMENTS, generator=generator) for i in range(n)}


@pytest.fixture
def models(make_checkpoint) -> list[Checkpoint]:
    """A base and two candidates with a tensor for each shard."""
    return [make_checkpoint(name, draw(seed)) for seed, name in enumerate(("base", "a", "b"))]


@pytest.fixture
def merge(models: list[Checkpoint], tmp_path: Path) -> Merge:
    def run(output: str = "out", **options: Any) -> MergedModel:
        base, *candidates = models
        told = TOLD | {"template": base, "output": tmp_path / output, "weights": WEIGHTS} | options
        return merge_checkpoints(base, candidates, **told)

    return run


def weights_of(model: Checkpoint) -> Path:
    return model.folder / "model.safetensors"


def wait_for_the_clock() -> None:
    """Until a file that is written has other times than those before it, also where they are as coarse as a tick."""
    time.sleep(0.02)


def write_anew(model: Checkpoint) -> None:
    """Other numbers in a file of the same size, as a training job that saves to the same folder."""
    wait_for_the_clock()
    content = weights_of(model).read_bytes()
    weights_of(model).write_bytes(content[:-40_000] + b"\0" * 40_000)


def rename_over(model: Checkpoint) -> None:
    draft = model.folder / "draft"
    draft.write_bytes(weights_of(model).read_bytes()[:-4] + b"\0" * 4)
    draft.replace(weights_of(model))


def copy_times(model: Checkpoint) -> None:
    """As rsync --times --inplace."""
    before = weights_of(model).stat()
    write_anew(model)
    os.utime(weights_of(model), ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(model: Checkpoint) -> None:
    """As a writer that has begun."""
    weights_of(model).write_bytes(b"\0" * 100)


def break_numbers(model: Checkpoint) -> None:
    wait_for_the_clock()
    save_file({name: tensor * torch.nan for name, tensor in draw(0).items()}, weights_of(model), {"format": "pt"})


def remove(model: Checkpoint) -> None:
    weights_of(model).unlink()


CHANGES = {
    write_anew: "was written to",
    copy_times: "was written to",
    rename_over: "was replaced by another file",
    cut: r"was written to \(\d{3},\d{3} bytes before, 100 now\)",
    break_numbers: "was (written to|replaced)",
    remove: "is gone",
}


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something once, when the first block of a merge has been written."""

    def plan(act: Callable[[], None]) -> None:
        write, waiting = blocks.write_range, [act]

        def write_and_act(*arguments: Any) -> None:
            write(*arguments)
            if waiting:
                waiting.pop()()

        monkeypatch.setattr(blocks, "write_range", write_and_act)

    return plan


def noted(folder: Path) -> list[str]:
    """Paths of the files that the journal of the only draft calls finished."""
    (journal,) = folder.glob(".resumable-*/journal.jsonl")
    return [json.loads(line)["path"] for line in journal.read_text().splitlines()[1:]]


@pytest.mark.parametrize("change", [write_anew, rename_over])
def test_shards_of_before_are_kept_those_made_meanwhile_are_not_and_the_old_content_can_be_merged_on(
    models: list[Checkpoint], merge: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Checkpoint], None],
):  # fmt: skip
    whole, old = merge("whole"), weights_of(models[2]).read_bytes()
    add = Journal.add

    def add_and_change(journal: Journal, *noted: Any) -> None:
        add(journal, *noted)
        change(models[2])

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add_and_change)
        with pytest.raises(ModelChangedError, match=CHANGES[change]):
            merge()
    (first,) = noted(tmp_path)
    assert [path.name for path in tmp_path.glob(".resumable-*/model/*")] == [first]
    assert not (tmp_path / "out").exists()

    weights_of(models[2]).write_bytes(old)
    again = merge()
    assert again.bytes_written == whole.bytes_written - whole.checkpoint.files[first].size
    assert again.checkpoint.files == whole.checkpoint.files
    for path in whole.checkpoint.files:
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_candidate_that_changes_while_it_is_read_leaves_nothing(
    models: list[Checkpoint], merge: Merge, meanwhile: Any, tmp_path: Path, change: Callable[[Checkpoint], None]
):
    meanwhile(lambda: change(models[2]))
    # All in one file: no shard was finished before.
    with pytest.raises(ModelChangedError, match=f"b: .*/b/model.safetensors {CHANGES[change]}"):
        merge(max_shard_bytes=10**9, is_ours=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


def test_the_message_lists_all_that_changed_and_says_what_to_do(
    models: list[Checkpoint], merge: Merge, meanwhile: Any, tmp_path: Path
):
    def change_both() -> None:
        write_anew(models[1])
        rename_over(models[2])

    size = weights_of(models[1]).stat().st_size
    meanwhile(change_both)
    with pytest.raises(ModelChangedError) as caught:
        merge(max_shard_bytes=10**9)
    assert str(caught.value) == (
        "models changed before their merge was done:\n"
        f"  - a: {tmp_path}/a/model.safetensors was written to ({size:,} bytes before, {size:,} now)\n"
        f"  - b: {tmp_path}/b/model.safetensors was replaced by another file\n"
        "run again to plan with what is there now, and write models to a new folder while refreshes run"
    )
    assert isinstance(caught.value, InputError) and may_be_mended(caught.value)


def test_merges_of_several_outputs_leave_none_of_them(models: list[Checkpoint], meanwhile: Any, tmp_path: Path):
    meanwhile(lambda: write_anew(models[1]))
    with pytest.raises(ModelChangedError, match=r"a: .* was written to"):
        merge_many(
            models[0], models[1:], [WEIGHTS, {"a": 1.0, "b": 0.0}], template=models[0],
            outputs=[tmp_path / "x", tmp_path / "y"], **TOLD,
        )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


def test_a_merge_of_unknown_content_is_not_accepted(models: list[Checkpoint], meanwhile: Any, tmp_path: Path):
    unknown = [dataclasses.replace(each, revision="", files={}) for each in models]
    meanwhile(lambda: write_anew(models[1]))
    with pytest.raises(ModelChangedError, match=r"a: .* was written to"):
        merge_checkpoints(unknown[0], unknown[1:], WEIGHTS, template=unknown[0], output=tmp_path / "out", **TOLD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


def test_a_merge_on_a_device_is_not_accepted(
    models: list[Checkpoint], merge: Merge, meanwhile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # In place of a GPU, the same code on the processor.
    monkeypatch.setattr("tasks.merge.merge.computing_device", lambda *_: "cpu")
    meanwhile(lambda: write_anew(models[2]))
    with pytest.raises(ModelChangedError, match=r"b: .* was written to"):
        merge(max_shard_bytes=10**9, device="cuda:0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


def test_an_adapter_that_changes_is_named(make_checkpoint, meanwhile: Any, tmp_path: Path):
    base = make_checkpoint("base", {f"layers.{i}.w.weight": torch.randn(24, 24) for i in range(2)})
    shapes = {f"layers.{i}.w": (24, 24) for i in range(2)}
    write_adapter(tmp_path / "lora", shapes, seed=3, size=0.1)
    files = {path.name: hash_file(path) for path in sorted((tmp_path / "lora").iterdir())}
    chat = dataclasses.replace(
        base, name="chat", adapter=describe_folder("chat adapter", "lora", tmp_path / "lora", files)
    )
    adapter = tmp_path / "lora/adapter_model.safetensors"

    def train_on() -> None:
        wait_for_the_clock()
        adapter.write_bytes(adapter.read_bytes()[:-4] + b"\0" * 4)

    meanwhile(train_on)
    with pytest.raises(ModelChangedError, match=r"chat adapter: .*/lora/adapter_model\.safetensors was written to"):
        merge_checkpoints(base, [chat], {"chat": 1.0}, template=base, output=tmp_path / "out", **TOLD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora"]


def test_a_candidate_that_changed_while_a_device_was_waited_for_is_refused_before_it_is_merged(
    models: list[Checkpoint], merge: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = prove_models(ResultCache(tmp_path / "cache"), *models)
    write_anew(models[2])
    monkeypatch.setattr(outputs, "write_weight_files", None)
    with pytest.raises(ModelChangedError, match=r"b: .* was written to"):
        merge(seen=seen)
    assert not (tmp_path / "out").exists() and list(tmp_path.glob(".*")) == []


def test_a_damaged_header_of_a_candidate_that_was_being_written_is_told_as_a_change(
    models: list[Checkpoint], merge: Merge
):
    seen = see_models(*models)
    cut(models[1])
    with pytest.raises(ModelChangedError, match=r"a: .* was written to") as caught:
        merge(seen=seen)
    assert isinstance(caught.value.__context__, CheckpointError)


def test_what_is_wrong_with_models_that_did_not_change_is_told_as_it_is(models: list[Checkpoint]):
    with pytest.raises(CheckpointError, match="damaged"), blaming_changes(see_models(*models).check):
        raise CheckpointError("damaged")


def test_a_single_file_that_appears_beside_shards_would_be_read_in_their_place_and_is_refused(
    make_checkpoint, tmp_path: Path
):
    model = make_checkpoint("sharded", draw(1), 3)
    before = see_models(model)
    save_file(draw(2), weights_of(model), {"format": "pt"})
    after = prove_models(ResultCache(tmp_path / "cache"), model)
    for seen in (before, after):
        with pytest.raises(ModelChangedError, match=r"sharded: .*/model\.safetensors has appeared"):
            merge_checkpoints(
                model, [model], {"sharded": 1.0}, template=model, output=tmp_path / "out", seen=seen, **TOLD
            )
    assert not (tmp_path / "out").exists()


def test_models_that_are_not_what_was_planned_are_not_proven(models: list[Checkpoint], tmp_path: Path):
    write_anew(models[1])
    with pytest.raises(InputError, match=r"a: .* changed since it was planned"):
        prove_models(ResultCache(tmp_path / "cache"), *models)
