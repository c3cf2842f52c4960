"""The code of a GPU, run on the processor: it gives the processor's bytes, and fails as the processor's does."""

import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.arithmetic.catalogue import METHOD_NAMES, find_method
from tasks.arithmetic.method import TensorInputs
from tasks.checkpoint import read_tensor_views
from tasks.depth import depth_of
from tasks.errors import CheckpointError, DeviceError, NonFiniteError, RecipeError
from tasks.merge import device as device_module
from tasks.merge.blocks import BlockSizes
from tasks.merge.device import BLOCK_ELEMENTS, N_SLOTS, DeviceBuffers, computing_device, place_on
from tasks.merge.inputs import choose, formula_maker
from tasks.merge.job import Job, Output, plan_parts
from tasks.merge.layout import plan_layout
from tasks.merge.merge import merge_checkpoints
from tasks.merge.ranges import preallocate
from tasks.merge.resume import merge_key
from tasks.merge.sources import FileSource
from tasks.merge.stream import stream_tensors
from tasks.records import Checkpoint

ON_DEVICE = [name for name in METHOD_NAMES if find_method(name).on_device]
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = {"w": (61, 17), "v": (1000,), "scale": (), "none": (0, 3)}
WEIGHTS = [{"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.1, "b": -0.7, "c": 1.6}]

MergeInto = Callable[..., list[bytes]]


def draw(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    return drawn | {"ids": torch.arange(9)}


@pytest.fixture
def models(make_checkpoint) -> list[Checkpoint]:
    """A base and three candidates in four dtypes."""
    return [
        make_checkpoint(name, draw(seed, dtype)) for seed, (name, dtype) in enumerate(zip("0abc", FLOATS, strict=True))
    ]


@pytest.fixture
def merge_into(tmp_path: Path) -> MergeInto:
    """Merge a base and candidates into one file for each of the weights, and return their bytes."""

    def run(
        base: Checkpoint,
        *candidates: Checkpoint,
        method: str = "linear",
        weights: Sequence[dict[str, float]] = (),
        dtype: str = "base",
        device: str | None = "cpu",
        block_elements: int = 1000,
        n_threads: int | None = None,
        report: Callable[[int, int], None] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> list[bytes]:
        names = [each.name for each in candidates]
        sources = [FileSource(each.name, read_tensor_views(each.folder)) for each in (base, *candidates)]
        (file,) = plan_layout(sources[0].tensors, dtype, 10**9).files
        equal = dict.fromkeys(names, 1 / len(names))
        choices = [choose(method, names, each, {}, {}, None, 0) for each in weights or [equal]]
        folder = tmp_path / f"merged-{len(list(tmp_path.iterdir()))}"
        outputs = [
            Output(folder / str(number), formula_maker(choice, depth_of(sources[0].tensors)))
            for number, choice in enumerate(choices)
        ]
        for output in outputs:
            output.folder.mkdir(parents=True)
            preallocate(output.folder / file.path, file.size)
        job = Job(sources[0], sources[1:], outputs, block_elements, choices[0].reads_base)
        if device is not None:
            job = replace(place_on(device, job, file.tensors), block_elements=block_elements)
        before()
        stream_tensors(job, plan_parts(job, file.tensors), lambda *_: None, report, n_threads)
        return [(output.folder / file.path).read_bytes() for output in outputs]

    return run


def no_merge_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("merge")]


@pytest.mark.parametrize("dtype", ["base", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_blocks_and_slots_of_a_device_give_the_bytes_of_the_processor(
    models: list[Checkpoint], merge_into: MergeInto, method: str, dtype: str
):
    expected = merge_into(*models, method=method, weights=WEIGHTS, dtype=dtype, device=None)
    for block_elements, n_threads in ((3, 4), (61, 1), (1037, 3), (10**6, None)):
        sizes: dict[str, Any] = {"block_elements": block_elements, "n_threads": n_threads}
        assert merge_into(*models, method=method, weights=WEIGHTS, dtype=dtype, **sizes) == expected


@pytest.mark.parametrize("n_candidates", [1, 2, 3])
def test_any_number_of_sources_gives_the_bytes_of_the_processor(
    models: list[Checkpoint], merge_into: MergeInto, n_candidates: int
):
    chosen = models[: 1 + n_candidates]
    assert merge_into(*chosen) == merge_into(*chosen, device=None)


def test_a_model_that_passes_through_is_copied_bit_by_bit(models: list[Checkpoint], merge_into: MergeInto):
    source = models[1]
    assert merge_into(source, source, method="passthrough") == merge_into(
        source, source, method="passthrough", device=None
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_named_by_tensor_and_candidate(make_checkpoint, merge_into: MergeInto, value: float):
    broken = torch.ones(500, dtype=torch.bfloat16)
    broken[432] = value
    good, bad = make_checkpoint("good", {"w": torch.ones(500)}), make_checkpoint("bad", {"w": broken})
    with pytest.raises(NonFiniteError, match=r"tensor 'w' holds NaN or infinity in bad \("):
        merge_into(good, good, bad, block_elements=100)
    assert no_merge_thread_is_left()


def test_a_sum_that_overflows_the_dtype_of_the_output_is_told_as_that(make_checkpoint, merge_into: MergeInto):
    big = make_checkpoint("big", {"w": torch.tensor([1e5, 1.0])})
    with pytest.raises(NonFiniteError, match=r"their combination reaches 1e\+05 and overflows F16"):
        merge_into(big, big, dtype="float16")


def test_finite_numbers_whose_sum_overflows_are_merged(make_checkpoint, merge_into: MergeInto):
    big = make_checkpoint("big", {"w": torch.full((10,), 1e308, dtype=torch.float64)})
    assert merge_into(big, big) == merge_into(big, big, device=None)


def test_integers_are_the_bases_and_a_difference_is_told(
    make_checkpoint, merge_into: MergeInto, caplog: pytest.LogCaptureFixture
):
    base, news = (make_checkpoint(name, {"ids": torch.full((9,), n)}) for n, name in enumerate(("base", "news")))
    with caplog.at_level(logging.WARNING):
        (merged,) = merge_into(base, base, news, block_elements=2)
    assert merged.endswith(torch.zeros(9, dtype=torch.int64).numpy().tobytes())
    assert "ids (news)" in caplog.text


def test_a_source_that_was_cut_is_named_and_all_threads_end(make_checkpoint, merge_into: MergeInto):
    base, news = (make_checkpoint(name, {"w": torch.ones(5000)}) for name in ("base", "news"))
    file = news.folder / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"news/model\.safetensors: it ends at byte \d+, expected \d+ more"):
        merge_into(base, base, news, block_elements=100, before=lambda: os.truncate(file, 1000))
    assert no_merge_thread_is_left()


def test_a_merge_that_is_cancelled_ends_its_threads(models: list[Checkpoint], merge_into: MergeInto):
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_into(*models, block_elements=2, report=cancel)
    assert no_merge_thread_is_left()


def test_slots_are_at_work_at_the_same_time(make_checkpoint, merge_into: MergeInto, monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(3, timeout=120)
    cast = DeviceBuffers.cast

    def wait_for_others(self: DeviceBuffers, total: Tensor, dtype: str) -> bool:
        # Broken, and the merge with it, if fewer than three slots ever hold a block.
        together.wait()
        return cast(self, total, dtype)

    monkeypatch.setattr(DeviceBuffers, "cast", wait_for_others)
    model = make_checkpoint("a", {"w": torch.arange(600.0)})
    merge_into(model, model, block_elements=100, n_threads=3)


@pytest.mark.parametrize("method", ON_DEVICE)
def test_formulas_on_devices_see_nothing_of_the_processor(method: str):
    # torch's device without memory: whatever would need the numbers themselves fails there.
    blocks = [torch.empty(4, dtype=dtype, device="meta") for dtype in (torch.bfloat16, torch.float32)]
    found = find_method(method)
    one = found.n_candidates[1] == 1
    inputs = TensorInputs(
        "w", (4,), weights=(0.5,) if one else (0.5, 0.5), parameters={"lambda": 1.0}, of_candidates=({"scale": 2.0},)
    )
    formula = found.formula(inputs)
    assert (formula.n_passes, formula.whole_rows) == (0, False)
    out = torch.empty(4, device="meta")
    assert formula.combine(0, blocks[0], blocks[:1] if one else blocks, out).device.type == "meta"


def test_the_methods_of_devices_are_known():
    assert ON_DEVICE == ["linear", "passthrough", "task_arithmetic"]


def test_blocks_fill_no_more_than_the_memory_that_is_meant_for_them(make_checkpoint):
    models = [make_checkpoint(name, {"w": torch.ones(9, dtype=torch.bfloat16)}) for name in "ab"]
    sources = [FileSource(each.name, read_tensor_views(each.folder)) for each in models]
    job, tensors = Job(sources[0], sources, []), list(sources[0].tensors.values())
    # Two inputs and the output of 2 bytes, three sums of 4.
    placed = place_on("cuda:0", job, tensors, device_bytes=N_SLOTS * 18 * 1000)
    assert (placed.device, placed.block_elements, placed.blocks_per_range) == ("cuda:0", 1000, 1)
    assert place_on("cuda:0", job, tensors).block_elements == BLOCK_ELEMENTS
    assert place_on("cuda:0", job, tensors, device_bytes=1).block_elements == 1


def test_a_device_without_room_is_named(monkeypatch: pytest.MonkeyPatch):
    def refuse(n_bytes: int, device: torch.device) -> Tensor:
        raise torch.OutOfMemoryError(f"tried to allocate {n_bytes} bytes")

    monkeypatch.setattr(device_module, "_reserve", refuse)
    with pytest.raises(DeviceError, match=r"cpu: there is no room to merge .*merge\.device: cpu.*allocate 8 bytes"):
        DeviceBuffers(BlockSizes(1, 8, 8, 8), "cpu")


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_the_processor_is_no_device(device: str):
    assert computing_device(device, find_method("linear")) is None


def test_a_method_that_a_gpu_cannot_compute_is_merged_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(device_module, "resolve_devices", tuple)
    with caplog.at_level(logging.INFO):
        assert computing_device("cuda:1", find_method("linear")) == "cuda:1"
        assert not caplog.records
        assert computing_device("cuda:1", find_method("ties")) is None
    assert "method ties is merged by the processor: its formula cannot be computed on cuda:1" in caplog.text


def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(RecipeError, match="'cuda:99' is not there"):
        computing_device("cuda:99", find_method("linear"))


def test_merges_on_a_device_have_the_files_of_the_processor_and_a_key_of_their_own(
    models: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: dict[str, Any] = {"method": "linear", "dtype": "base", "max_shard_bytes": 2000, "template": models[0]}
    merged = [merge_checkpoints(models[0], models[1:], WEIGHTS[0], output=tmp_path / "plain", **told)]
    # In place of a GPU, the same code on the processor.
    monkeypatch.setattr("tasks.merge.merge.computing_device", lambda *_: "cpu")
    merged.append(merge_checkpoints(models[0], models[1:], WEIGHTS[0], output=tmp_path / "there", device="x", **told))
    assert merged[0].checkpoint.files == merged[1].checkpoint.files
    choice = choose("linear", "abc", WEIGHTS[0], {}, {}, None, 0)
    keys = [
        merge_key(models[0], models[1:], choice, "base", 1, models[0], device=each)
        for each in (None, "cuda:0", "cuda:1")
    ]
    assert keys[0] != keys[1] == keys[2]


class PretendedGpu:
    """Notes what CUDA would be asked for; its streams do everything at once."""

    def __init__(self):
        self.asked: list[str] = []

    def note(self, what: str) -> Callable[..., None]:
        return lambda *_: self.asked.append(what)

    @contextmanager
    def within(self, stream: Any) -> Generator[None]:
        self.asked.append("enter")
        yield
        self.asked.append("leave")


def test_a_slot_waits_for_its_copies_before_they_are_read(
    make_checkpoint, merge_into: MergeInto, monkeypatch: pytest.MonkeyPatch
):
    gpu, locked = PretendedGpu(), []
    model = make_checkpoint("a", {"w": torch.arange(200.0)})
    expected = merge_into(model, model, device=None)

    def lock(n_bytes: int) -> memoryview:
        locked.append(n_bytes)
        return memoryview(bytearray(n_bytes))

    def event(blocking: bool) -> Any:
        return type("Event", (), {"record": gpu.note("record"), "synchronize": gpu.note("wait")})()

    stream = type("Stream", (), {"synchronize": gpu.note("synchronize")})
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream())
    monkeypatch.setattr(torch.cuda, "stream", gpu.within)
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(device_module, "_page_locked", lock)
    monkeypatch.setattr(device_module, "_reserve", lambda n_bytes, _: torch.empty(n_bytes, dtype=torch.uint8))
    assert merge_into(model, model, device="cuda:0", block_elements=100, n_threads=1) == expected
    part = ["enter", "record", "wait", "synchronize", "leave"]
    assert gpu.asked == ["enter", "synchronize", "leave", *part, *part]
    assert locked == [400, 400, 400, 8]
