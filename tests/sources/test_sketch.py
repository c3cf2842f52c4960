import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HubServer
from safetensors.numpy import save_file
from seeding import put_on_hub

from tasks.cache import ResultCache
from tasks.checkpoint import read_tensor_views
from tasks.errors import CheckpointError, StoreError
from tasks.plan.resolve import ResolvedModel, resolve_model
from tasks.sources.sketch import FileRange, Sketch, open_sketch

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint of a megabyte."""
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"of": "news"}')
    numbers = np.random.default_rng(0)
    tensors = {name: numbers.standard_normal((400, 400)).astype(np.float32) for name in ("a.weight", "b.weight")}
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.fixture
def news(model: Path, hub: HubServer) -> Path:
    """The same on the Hub as org/news."""
    put_on_hub(hub, "org/news", model)
    return model


def sketched(model: ResolvedModel, cache: ResultCache) -> tuple[Path, Sketch | None]:
    return open_sketch(model.checkpoint, model.source, model.fetched, cache)


def sketch_of(cache: ResultCache, reference: str = "org/news") -> Sketch:
    _, sketch = sketched(resolve_model(reference, cache), cache)
    assert sketch is not None
    return sketch


def test_a_sketch_has_the_headers_and_the_small_files(news: Path, cache: ResultCache):
    folder = sketch_of(cache).folder
    for view, expected in zip(read_tensor_views(folder).values(), read_tensor_views(news).values(), strict=True):
        assert (view.name, view.shape, view.start) == (expected.name, expected.shape, expected.start)
    for name in ("config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (news / name).read_bytes()


def test_ranges_that_were_asked_for_are_there_and_are_asked_for_once(news: Path, cache: ResultCache, hub: HubServer):
    content = (news / WEIGHTS).read_bytes()
    sketch = sketch_of(cache)
    hub.requests.clear()
    pieces = [FileRange(WEIGHTS, 500_000, 1000), FileRange(WEIGHTS, len(content) - 10, 10)]
    sketch.fill([*pieces, *pieces])
    assert hub.count("lfs_get") == 2
    read = (sketch.folder / WEIGHTS).read_bytes()
    assert read[500_000:501_000] == content[500_000:501_000] and read[-10:] == content[-10:]
    assert read[400_000:500_000] == bytes(100_000)
    sketch_of(cache).fill([*pieces, FileRange(WEIGHTS, 500_100, 100)])
    assert hub.count("lfs_get") == 2


def test_a_damaged_journal_is_only_forgotten(news: Path, cache: ResultCache, hub: HubServer):
    sketch = sketch_of(cache)
    (sketch.folder / ".filled.json").write_text("[")
    sketch.fill([FileRange(WEIGHTS, 0, 8)])
    assert json.loads((sketch.folder / ".filled.json").read_text()) == {WEIGHTS: [[0, 8]]}


def test_what_came_before_a_fault_is_kept(news: Path, cache: ResultCache, hub: HubServer):
    sketch = sketch_of(cache)
    pieces = [FileRange(WEIGHTS, 500_000 + 1000 * number, 10) for number in range(4)]
    fault = hub.fail("lfs_get", "status", 1, status=403)
    with pytest.raises(StoreError, match="403"):
        sketch.fill(pieces)
    hub.requests.clear()
    sketch.fill(pieces)
    assert (fault.seen, hub.count("lfs_get")) == (1, 1)


def test_a_file_that_was_cut_short_is_named(news: Path, cache: ResultCache):
    sketch = sketch_of(cache)
    size = (news / WEIGHTS).stat().st_size
    with pytest.raises(
        StoreError, match=rf"hub://org/news@\w+/{WEIGHTS}: asked for 20 bytes from {size - 10}, found 10"
    ):
        sketch.fill([FileRange(WEIGHTS, size - 10, 20)])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"short", r"no safetensors file \(header of \d+ bytes in a file of 5\)"),
        ((200).to_bytes(8, "little") + b"{}", r"no safetensors file \(header of 200 bytes in a file of 10\)"),
        ((10**12).to_bytes(8, "little") + bytes(100), r"no safetensors file \(header of 1000000000000 bytes"),
        ((4).to_bytes(8, "little") + b"{no}", r"the safetensors header cannot be read: "),
    ],
)
def test_a_file_without_a_header_is_named_and_no_sketch_is_kept(
    news: Path, cache: ResultCache, hub: HubServer, content: bytes, text: str
):
    hub.commit("org/news", {WEIGHTS: content})
    with pytest.raises(CheckpointError, match=rf"hub://org/news@\w+/{WEIGHTS}: .*{text}"):
        sketch_of(cache)
    assert not list((cache.folder / "sketches").glob("[!.]*"))


def test_a_header_that_is_longer_than_the_first_request_is_read_whole(news: Path, cache: ResultCache, hub: HubServer):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"note": "n" * 100_000}, "a": entry}).encode()
    hub.commit("org/news", {WEIGHTS: len(header).to_bytes(8, "little") + header + bytes(4)})
    assert list(read_tensor_views(sketch_of(cache).folder)) == ["a"]


def test_paths_that_lead_out_of_the_folder_are_refused(news: Path, cache: ResultCache):
    model = resolve_model("org/news", cache)
    model.checkpoint.files["../../evil.safetensors"] = model.checkpoint.files[WEIGHTS]
    with pytest.raises(CheckpointError, match=r"files must lie inside the model's folder; found \.\./\.\./evil"):
        sketched(model, cache)


def test_sketches_that_no_plan_has_used_for_a_month_are_removed(news: Path, cache: ResultCache, hub: HubServer):
    old = sketch_of(cache).folder
    os.utime(old, (0, 0))
    hub.commit("org/news", {"config.json": (news / "config.json").read_bytes() + b"\n"})
    new = sketch_of(cache).folder
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_was_moved_is_used_where_it_is_now(news: Path, cache: ResultCache):
    sketch_of(cache)
    cache.folder.rename(cache.folder.with_name("moved"))
    moved = ResultCache(cache.folder.with_name("moved"))
    assert (sketch_of(moved).folder / "config.json").read_bytes() == (news / "config.json").read_bytes()


def test_a_local_model_needs_no_sketch(model: Path, cache: ResultCache):
    assert sketched(resolve_model(str(model), cache), cache) == (model, None)


def test_a_cache_that_cannot_be_written_is_named(news: Path, cache: ResultCache, monkeypatch: pytest.MonkeyPatch):
    model = resolve_model("org/news", cache)
    (cache.folder / "sketches").write_text("in the way")
    with pytest.raises(StoreError, match=r"sketches/\w+: cannot be written"):
        sketched(model, cache)


def test_two_runs_that_make_one_sketch_both_have_it(news: Path, cache: ResultCache, monkeypatch: pytest.MonkeyPatch):
    """The other run is first in the moment before this one gives its sketch a name."""
    first = sketch_of(cache).folder
    exists: Any = Path.is_dir
    asked: list[Path] = []

    def not_at_first(path: Path) -> bool:
        asked.append(path)
        return exists(path) and not (path == first and asked.count(first) == 1)

    monkeypatch.setattr(Path, "is_dir", not_at_first)
    assert sketch_of(cache).folder == first
    assert asked.count(first) >= 2
