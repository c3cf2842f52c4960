from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tasks.devices import call_on_device
from tasks.errors import RecipeError
from tasks.merge import leased
from tasks.merge.leased import merge_in_worker, merge_leased
from tasks.merge.merge import merge_checkpoints
from tasks.settings import MergeSettings


def tell(**told: Any) -> Any:
    """In place of a merge: what it was told."""
    return told


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of workers, on a machine with two GPUs."""
    calls: list[Any] = []

    def call(devices: Sequence[str], function: Any, merge: Any, report_progress: Any) -> Any:
        calls.append((list(devices), function))
        return function("cuda:0", merge)

    monkeypatch.setattr(
        leased, "resolve_devices", lambda setting: ["cuda:0", "cuda:1"] if setting == "auto" else setting
    )
    monkeypatch.setattr(leased, "call_on_device", call)
    return calls


def merge_with(device: str, method: Any = "linear") -> Any:
    return merge_leased(MergeSettings(device=device, method=method), partial(tell), print)


def test_by_default_this_process_merges(two_gpus: list[Any]):
    assert MergeSettings().device == "cpu"
    assert merge_with("cpu") == {"device": "cpu", "report_progress": print}
    assert two_gpus == []


@pytest.mark.parametrize(("device", "devices"), [("auto", ["cuda:0", "cuda:1"]), ("cuda:1", ["cuda:1"])])
def test_a_gpu_merges_in_its_worker(two_gpus: list[Any], device: str, devices: list[str]):
    assert merge_with(device)["device"] == "cuda:0"
    assert two_gpus == [(devices, merge_in_worker)]


def test_a_method_that_a_gpu_cannot_compute_takes_none_from_others(two_gpus: list[Any]):
    assert merge_with("cuda:1", "ties") == {"device": "cuda:1", "report_progress": print}
    assert two_gpus == []


def test_without_a_gpu_auto_is_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leased, "resolve_devices", lambda setting: ["cpu:0", "cpu:1"])
    assert merge_with("auto")["device"] == "cpu"


def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(RecipeError, match="'cuda:99' is not there"):
        merge_with("cuda:99")


@pytest.mark.parametrize("device", ["gpu", "cuda", "cpu:0", "cuda:0,cuda:1"])
def test_another_name_is_no_device(device: str):
    with pytest.raises(ValidationError, match="device"):
        MergeSettings(device=device)


def test_a_worker_merges_and_tells_how_far_it_is(make_checkpoint, tmp_path: Path):
    model = make_checkpoint("a", {"w": torch.arange(9.0)})
    seen: list[tuple[int, int]] = []
    merge_there = partial(
        merge_checkpoints, model, [model], {"a": 1.0}, method="linear", dtype="base", max_shard_bytes=10**9,
        template=model, output=tmp_path / "merged",
    )  # fmt: skip
    merged = call_on_device(
        ["cpu:0"],
        merge_in_worker,
        merge_there,
        report_progress=lambda done, total: seen.append((done, total)),
        lock_folder=tmp_path / "locks",
    )
    assert merged.checkpoint.files["model.safetensors"] == model.files["model.safetensors"]
    assert seen[-1] == (36, 36)
