from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.arithmetic.method import Method, TensorInputs
from tasks.arithmetic.methods.linear import Linear
from tasks.errors import NonFiniteError, StoreError
from tasks.merge import inputs, sources, whole_reads
from tasks.merge.merge import merge_checkpoints, merge_many
from tasks.merge_records import MergedModel
from tasks.records import Checkpoint

WEIGHTS = [{"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.0, "b": 1.0, "c": 0.0}, {"a": 0.25, "b": 0.0, "c": 0.75}]


class TwoReadings(Linear):
    """A weighted sum that reads everything twice."""

    n_passes = 1

    def observe(self, number: int, first: int, base: Tensor | None, candidates: Sequence[Tensor]) -> None:
        pass


def make_two_readings(told: TensorInputs) -> TwoReadings:
    return TwoReadings(told)


@pytest.fixture
def models(make_checkpoint, random_tensors) -> list[Checkpoint]:
    """Three models in three dtypes, each with a buffer of integers."""
    dtypes = {"a": torch.float32, "b": torch.bfloat16, "c": torch.float16}
    return [
        make_checkpoint(name, random_tensors(seed, dtype) | {"ids": torch.arange(5)}, n_shards=1 + seed)
        for seed, (name, dtype) in enumerate(dtypes.items())
    ]


@pytest.fixture
def merge_all(models: list[Checkpoint], tmp_path: Path) -> Callable[..., list[MergedModel]]:
    """`merge_many` of the models into the folders `many-0`, `many-1`, ..."""

    def run(weights: Sequence[Mapping[str, float]] = WEIGHTS, **options: Any) -> list[MergedModel]:
        defaults: dict[str, Any] = {
            "method": "linear",
            "outputs": [tmp_path / f"many-{number}" for number in range(len(weights))],
            "dtype": "base",
            "max_shard_bytes": 3000,
            "template": models[0],
        }
        return merge_many(models[0], models, weights, **(defaults | options))

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": "bfloat16"}, {"method": "task_arithmetic", "parameters": {"lambda": 0.5}, "general": "b"}],
    ids=["linear", "bfloat16", "task_arithmetic"],
)
def test_each_output_has_the_bytes_of_a_merge_of_its_own(
    models: list[Checkpoint], merge_all, tmp_path: Path, options: dict[str, Any]
):
    for number, merged in enumerate(merge_all(**options)):
        alone = {"method": "linear", "dtype": "base"} | options
        own = merge_checkpoints(
            models[0], models, WEIGHTS[number], max_shard_bytes=3000, template=models[0],
            output=tmp_path / f"own-{number}", **alone,
        )  # fmt: skip
        assert content(merged.checkpoint.folder) == content(own.checkpoint.folder)
        assert merged.checkpoint.files == own.checkpoint.files


def test_every_byte_is_read_once_for_all_outputs(merge_all, monkeypatch: pytest.MonkeyPatch):
    read: list[tuple[Path, int, int]] = []
    original = sources.read_range

    def count(descriptor: int, start: int, buffer: memoryview, file: Path) -> None:
        read.append((file, start, len(buffer)))
        original(descriptor, start, buffer, file)

    monkeypatch.setattr(sources, "read_range", count)
    # What C reads cannot be counted here.
    monkeypatch.setattr(whole_reads, "load_library", lambda: None)
    merged = merge_all()
    # The integers of b and c are read to be compared, which is not counted.
    compared = 2 * 5 * 8
    assert len(set(read)) == len(read)
    assert sum(n_bytes for *_, n_bytes in read) == merged[0].bytes_read + compared


def test_progress_counts_all_outputs(merge_all):
    seen: list[tuple[int, int]] = []
    merge_all(report_progress=lambda *progress: seen.append(progress))
    # Elements of the random tensors in float32, five integers of 8 bytes, three outputs.
    n_bytes = 3 * (4 * (64 * 24 + 24 * 24 + 25 * 31 + 24 + 1) + 5 * 8)
    assert seen[-1] == (n_bytes, n_bytes)


def test_a_method_with_passes_is_refused_and_nothing_is_written(
    merge_all, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    method = Method("two_readings", "", "", make_two_readings)
    monkeypatch.setattr(inputs, "find_method", lambda _: method)
    with pytest.raises(ValueError, match="the formula must see all of the tensor before it can write"):
        merge_all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("outputs", [[], ["x"], ["x", "y", "x"], ["x", "y", "z", "u"]])
def test_every_weighting_needs_a_folder_of_its_own(merge_all, tmp_path: Path, outputs: list[str]):
    with pytest.raises(ValueError, match="expected a folder of its own for each of 3 weights; found"):
        merge_all(outputs=[tmp_path / name for name in outputs])


def test_no_weights_are_refused(merge_all):
    with pytest.raises(ValueError, match="for each of 0 weights"):
        merge_all([])


def test_an_output_that_overflows_leaves_none_of_them(merge_all, tmp_path: Path):
    with pytest.raises(NonFiniteError, match="overflows F16"):
        merge_all([*WEIGHTS[:2], {"a": 1e6, "b": 1.0, "c": 1.0}], dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_the_space_of_all_outputs_is_asked_for_together(merge_all, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # One output takes some 12 kB, three take more than this.
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=25_000))
    merge_all(WEIGHTS[:1], outputs=[tmp_path / "one"])
    with pytest.raises(StoreError, match=r"bytes to write, 25,000 free"):
        merge_all()
