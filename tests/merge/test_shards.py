"""One merge by several processes: the bytes are those of one, wherever the inputs lie and whoever dies."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from s3_server import S3Server
from safetensors.torch import save_file
from seeding import put_on_s3
from small_adapters import write_adapter
from torch import Tensor

import tasks.merge.shards
from tasks.cache import ResultCache, open_cache
from tasks.checkpoint import describe_folder, read_tensor_views
from tasks.digests import hash_file
from tasks.errors import CheckpointError, CheckpointMismatchError, InputError, NonFiniteError, StoreError
from tasks.merge.by_range import Ranges, RangeSource
from tasks.merge.merge import merge_checkpoints
from tasks.merge.shards import MergeRequest, finish_merge, merge_shard, outline
from tasks.merge_records import MergedModel
from tasks.plan.resolve import resolve_model
from tasks.records import Checkpoint
from tasks.settings import CacheSettings
from tasks.stores.shards import FolderPlace, S3Place, ShardPlace, open_place, sweep_places

SHAPES = {"embed.weight": (64, 24), "layers.0.w.weight": (24, 24), "layers.1.w.weight": (25, 24), "norm.weight": (24,)}
BUCKET = "s3://models"
METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "float32": {"dtype": "float32"},
    "ties": {"method": "ties", "parameters": {"normalize": True}},
    "dare_ties": {"method": "dare_ties", "seed": 3},
    "slerp": {"method": "slerp"},
}


def draw(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    floats = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return floats | {"ids": torch.arange(3)}


@pytest.fixture
def family(make_checkpoint: Callable[..., Checkpoint]) -> list[Checkpoint]:
    """A base in bfloat16, and fine-tunes in two other forms."""
    base = {name: tensor.bfloat16() if name != "ids" else tensor for name, tensor in draw(1).items()}
    return [make_checkpoint("base", base), make_checkpoint("law", draw(2), 3), make_checkpoint("news", draw(3))]


@pytest.fixture
def elsewhere(family: list[Checkpoint], s3: S3Server, cache: ResultCache) -> list[Checkpoint]:
    """The same models on S3, as a plan finds them; their weights are on this machine nowhere."""
    found = [resolve_model(put_on_s3(s3, f"{BUCKET}/{model.name}", model.folder), cache).checkpoint for model in family]
    return [dataclasses.replace(model, name=each.name) for model, each in zip(found, family, strict=True)]


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache of a node")


def request_of(models: list[Checkpoint], **options: Any) -> MergeRequest:
    base, *candidates = models
    if options.get("method") == "slerp":
        options.setdefault("parameters", {"t": 0.3})
    settings: dict[str, Any] = {
        "weights": {each.name: 0.3 + 0.4 * i for i, each in enumerate(candidates)},
        "method": "linear",
        "parameters": {},
        "candidate_parameters": {},
        "general": None,
        "seed": 0,
        "dtype": "base",
        "max_shard_bytes": 2000,
        "embeddings": None,
        "has_base": True,
    }
    return MergeRequest(base, tuple(candidates), **(settings | options))


def alone(request: MergeRequest, output: Path) -> MergedModel:
    """The same by one process, from files on this machine."""
    values = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    base, candidates = values.pop("base"), values.pop("candidates")
    return merge_checkpoints(base, candidates, values.pop("weights"), template=base, output=output, **values)


def together(request: MergeRequest, place: ShardPlace, cache: ResultCache) -> MergedModel:
    """All of it, the last files first."""
    shards = {path: merge_shard(request, path, place, cache) for path in reversed(outline(request, cache))}
    return finish_merge(request, shards, place, cache)


def place_in(folder: Path) -> FolderPlace:
    folder.mkdir()
    return FolderPlace(folder)


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_the_bytes_are_those_of_one_process(
    family: list[Checkpoint], elsewhere: list[Checkpoint], cache: ResultCache, tmp_path: Path, options: dict[str, Any]
):
    expected = alone(request_of(family, **options), tmp_path / "alone")
    found = together(request_of(elsewhere, **options), place_in(tmp_path / "shared"), cache)
    assert len([path for path in found.checkpoint.files if path.endswith(".safetensors")]) >= 3
    assert found.checkpoint.files == expected.checkpoint.files
    assert {path: hash_file(tmp_path / "shared" / path) for path in found.checkpoint.files} == found.checkpoint.files
    assert found.health == expected.health and found.health is not None
    assert (found.bytes_read, found.checkpoint.digest) == (expected.bytes_read, expected.checkpoint.digest)
    assert not [path.name for path in (tmp_path / "shared").iterdir() if path.name.startswith(".")]


def test_from_s3_to_s3_nothing_stays_on_this_machine(
    family: list[Checkpoint], elsewhere: list[Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    expected = alone(request_of(family), tmp_path / "alone")
    place = open_place(f"{BUCKET}/merged/x", tmp_path / "scratch")
    found = together(request_of(elsewhere), place, cache)
    assert found.checkpoint.uri == f"{BUCKET}/merged/x"
    assert found.checkpoint.files == expected.checkpoint.files
    for path, digest in found.checkpoint.files.items():
        assert place.holds(path, digest)
    read_back = resolve_model(found.checkpoint.uri, ResultCache(tmp_path / "reader")).checkpoint
    assert read_back.files == expected.checkpoint.files
    # Headers and small files are here; of weights nothing but sparse files.
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and "scratch" in path.parts)
    assert on_disk == 0


def test_a_file_is_read_in_the_ranges_that_it_needs_and_in_few_requests(
    elsewhere: list[Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    request = request_of(elsewhere)
    first, *_ = outline(request, cache)
    s3.requests.clear()
    merge_shard(request, first, place_in(tmp_path / "shared"), cache)
    asked = [each for each in s3.requests if each.operation == "GetObject" and each.path.endswith(".safetensors")]
    # One tensor, the largest, of two candidates.
    assert len(asked) == 2


@pytest.mark.parametrize("window_elements", [1, 100, 5000])
def test_windows_change_no_byte(
    elsewhere: list[Checkpoint], family: list[Checkpoint], cache: ResultCache, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, window_elements: int,
):  # fmt: skip
    monkeypatch.setattr(tasks.merge.shards, "_open", with_window(tasks.merge.shards._open, window_elements))
    request = request_of(elsewhere, **METHODS["ties"])
    found = together(request, place_in(tmp_path / "shared"), cache)
    assert found.checkpoint.files == alone(request_of(family, **METHODS["ties"]), tmp_path / "alone").checkpoint.files


def with_window(function: Callable[..., Any], window_elements: int) -> Callable[..., Any]:
    return lambda request, cache, window_elements=window_elements: function(request, cache, window_elements)


def test_adapters_are_added_while_ranges_are_read(
    family: list[Checkpoint], elsewhere: list[Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    write_adapter(tmp_path / "adapter", {"layers.0.w": (24, 24), "layers.1.w": (25, 24)}, seed=3, size=0.1)
    files = {path.name: hash_file(path) for path in sorted((tmp_path / "adapter").iterdir())}
    here = describe_folder("adapter", "adapter", tmp_path / "adapter", files)
    there = dataclasses.replace(here, uri=put_on_s3(s3, f"{BUCKET}/adapter", tmp_path / "adapter"))
    expected = alone(
        request_of([*family, dataclasses.replace(family[0], name="chat", adapter=here)]), tmp_path / "alone"
    )
    found = together(
        request_of([*elsewhere, dataclasses.replace(elsewhere[0], name="chat", adapter=there)]),
        place_in(tmp_path / "shared"),
        cache,
    )
    assert found.checkpoint.files == expected.checkpoint.files
    assert found.health == expected.health


def test_who_begins_again_finds_what_others_have_finished(
    elsewhere: list[Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    request, place = request_of(elsewhere), S3Place(f"{BUCKET}/merged/x", tmp_path / "scratch")
    first, second, *_ = outline(request, cache)
    digests = [merge_shard(request, path, place, cache) for path in (first, second)]
    s3.client().delete_object(Bucket="models", Key=f"merged/x/{second}")
    s3.requests.clear()
    assert [merge_shard(request, path, place, cache) for path in (first, second)] == digests
    written = {each.path.rpartition("/")[2] for each in s3.requests if each.method == "PUT"}
    assert written == {second}
    # Another merge: nothing of it is there.
    s3.requests.clear()
    merge_shard(request_of(elsewhere, seed=1, method="dare_ties"), first, place, cache)
    assert [each for each in s3.requests if each.method == "PUT"]


def test_what_machines_share_is_read_from_there(
    family: list[Checkpoint], elsewhere: list[Checkpoint], s3: S3Server, tmp_path: Path
):
    settings = CacheSettings(folder=str(tmp_path / "node"), shared=f"{BUCKET}/cache", share_downloads=True)
    node = open_cache(settings)
    assert node.shared is not None
    for model in family:
        for path, digest in model.files.items():
            node.shared.add_file(model.folder / path, digest)
    request = request_of(elsewhere)
    s3.requests.clear()
    found = together(request, place_in(tmp_path / "shared"), node)
    assert found.checkpoint.files == alone(request_of(family), tmp_path / "alone").checkpoint.files
    read = [each for each in s3.requests if each.operation == "GetObject" and each.path.endswith(".safetensors")]
    # Headers alone come from the models' own place, since no file of it is asked for whole.
    assert len(read) == len([path for model in family for path in model.files if path.endswith(".safetensors")])


def test_an_object_that_was_replaced_is_an_error_and_nothing_is_stored(
    family: list[Checkpoint], elsewhere: list[Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    request, place = request_of(elsewhere), place_in(tmp_path / "shared")
    first, *_ = outline(request, cache)
    content = (family[2].folder / "model.safetensors").read_bytes()
    replaced = {"Body": content[:-4] + b"\0\0\0\0", "ChecksumAlgorithm": "SHA256"}
    s3.client().put_object(Bucket="models", Key="news/model.safetensors", **replaced)
    with pytest.raises(StoreError, match=r"model.safetensors of s3://models/news: the file changed: expected sha256"):
        merge_shard(request, first, place, cache)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_folder_that_changed_since_it_was_planned_is_an_error_and_nothing_is_stored(
    family: list[Checkpoint], cache: ResultCache, tmp_path: Path
):
    request, place = request_of(family), place_in(tmp_path / "shared")
    first, *_ = outline(request, cache)
    write_anew(family[2])
    with pytest.raises(InputError, match=r"changed since it was planned:\n  - model.safetensors: planned sha256"):
        merge_shard(request, first, place, cache)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_folder_that_changes_while_it_is_merged_is_an_error_and_nothing_is_stored(
    family: list[Checkpoint], cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = tasks.merge.shards.write_weight_files

    def write_meanwhile(*arguments: Any) -> Any:
        write_anew(family[2])
        return write(*arguments)

    request, place = request_of(family), place_in(tmp_path / "shared")
    first, *_ = outline(request, cache)
    monkeypatch.setattr(tasks.merge.shards, "write_weight_files", write_meanwhile)
    with pytest.raises(InputError, match=r"changed since it was planned:\n  - model.safetensors: planned sha256"):
        merge_shard(request, first, place, cache)
    assert list((tmp_path / "shared").iterdir()) == []


def write_anew(model: Checkpoint) -> None:
    """Other numbers under the same name, in a file of the same size."""
    content = (model.folder / "model.safetensors").read_bytes()
    (model.folder / "model.safetensors").write_bytes(content[:-4] + b"\0\0\0\0")


def test_weights_of_which_nothing_is_known_there_are_fetched_and_proven(
    family: list[Checkpoint], elsewhere: list[Checkpoint], s3: S3Server, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    put_on_s3(s3, f"{BUCKET}/news", family[2].folder, with_sha256=False)
    node = ResultCache(tmp_path / "another node")
    found = together(request_of(elsewhere), place_in(tmp_path / "shared"), node)
    assert found.checkpoint.files == alone(request_of(family), tmp_path / "alone").checkpoint.files
    assert "news: s3://models/news has no sha256 of its weights, so they are fetched whole" in caplog.text


def test_nan_is_named_by_tensor_and_candidate(
    family: list[Checkpoint], make_checkpoint: Callable[..., Checkpoint], cache: ResultCache, tmp_path: Path
):
    broken = draw(4)
    broken["embed.weight"][3, 3] = float("nan")
    request = request_of([family[0], make_checkpoint("broken", broken)])
    first, *_ = outline(request, cache)
    with pytest.raises(NonFiniteError, match=r"embed.weight.*broken|broken.*embed.weight"):
        merge_shard(request, first, place_in(tmp_path / "shared"), cache)


def test_models_that_do_not_fit_are_refused_before_anything_is_merged(
    family: list[Checkpoint], make_checkpoint: Callable[..., Checkpoint], cache: ResultCache
):
    other = {name: tensor[:10] for name, tensor in draw(4).items()}
    with pytest.raises(CheckpointMismatchError):
        outline(request_of([family[0], make_checkpoint("other", other)]), cache)


def test_a_machine_that_does_not_see_the_folder_says_what_to_do(tmp_path: Path):
    with pytest.raises(InputError, match=r"does not see the folder .* put the cache .* on storage"):
        open_place((tmp_path / "elsewhere").as_uri(), tmp_path)


def test_a_file_that_the_merge_does_not_have_is_named(family: list[Checkpoint], cache: ResultCache, tmp_path: Path):
    with pytest.raises(ValueError, match=r"x\.safetensors is none of the merge's files"):
        merge_shard(request_of(family), "x.safetensors", place_in(tmp_path / "shared"), cache)


def test_places_that_nobody_came_back_to_for_a_week_are_removed(s3: S3Server, tmp_path: Path):
    s3.create_bucket("models")
    for name in ("old", "new"):
        s3.client().put_object(Bucket="models", Key=f"cache/merged/{name}/a", Body=b"x")
    s3.set_age("models", "cache/merged/old/a", 8 * 24 * 3600)
    sweep_places(f"{BUCKET}/cache/merged")
    keys = [entry["Key"] for entry in s3.client().list_objects_v2(Bucket="models")["Contents"]]
    assert keys == ["cache/merged/new/a"]


def test_a_file_that_ends_too_early_is_named(family: list[Checkpoint], tmp_path: Path):
    source = RangeSource(
        "news",
        read_tensor_views(family[2].folder),
        family[2].folder,
        Ranges(lambda path, start, length: b"x" * (length - 1)),
    )
    with (
        source.reading("norm.weight") as read,
        pytest.raises(CheckpointError, match=r"news: .* the file was cut short"),
    ):
        read(0, 4, memoryview(bytearray(100)))


def test_rows_far_apart_bring_nothing_that_lies_between_them(family: list[Checkpoint]):
    asked: list[int] = []

    def read_range(path: str, start: int, length: int) -> bytes:
        asked.append(length)
        data = (family[2].folder / path).read_bytes()
        return data[start : start + length]

    views = read_tensor_views(family[2].folder)
    source = RangeSource("news", views, family[2].folder, Ranges(read_range, window_elements=10 * 24))
    with source.reading("embed.weight") as read:
        buffer = memoryview(bytearray(24 * 4))
        rows = [63, *range(62, 0, -2), 0, 1, 2, 3]
        found = torch.stack([read(24 * row, 24, buffer).tensor().clone() for row in rows])
    assert torch.equal(found, draw(3)["embed.weight"][rows])
    # Backwards one row each; forwards twice as many with each request: row 0 alone, then 1 and 2, then 3 to 6.
    assert asked == [24 * 4] * 33 + [2 * 24 * 4, 4 * 24 * 4]


def test_every_pass_over_a_tensor_is_read_in_windows(family: list[Checkpoint]):
    asked: list[int] = []

    def read_range(path: str, start: int, length: int) -> bytes:
        asked.append(length)
        return bytes(length)

    views = read_tensor_views(family[2].folder)
    source = RangeSource("news", views, family[2].folder, Ranges(read_range, window_elements=20 * 24))
    with source.reading("embed.weight") as read:
        for _ in range(2):
            for row in range(64):
                read(24 * row, 24, memoryview(bytearray(24 * 4)))
    # 22 rows, twice, and the last 20.
    assert asked == [22 * 24 * 4, 22 * 24 * 4, 20 * 24 * 4] * 2


def test_files_in_folders_of_their_own_are_put_there(
    make_checkpoint: Callable[..., Checkpoint], cache: ResultCache, s3: S3Server, tmp_path: Path
):
    models = [with_dense(make_checkpoint(name, draw(seed)), seed) for seed, name in enumerate(("base", "law", "news"))]
    expected = alone(request_of(models), tmp_path / "alone")
    in_folder = together(request_of(models), place_in(tmp_path / "shared"), cache)
    assert in_folder.checkpoint.files == expected.checkpoint.files
    assert {"1_Pooling/config.json", "2_Dense/model.safetensors"} < set(in_folder.checkpoint.files)
    assert {path: hash_file(tmp_path / "shared" / path) for path in expected.checkpoint.files} == (
        expected.checkpoint.files
    )
    s3.create_bucket("models")
    on_s3 = together(request_of(models), S3Place(f"{BUCKET}/merged/x", tmp_path / "scratch"), cache)
    assert on_s3.checkpoint.files == expected.checkpoint.files


def with_dense(model: Checkpoint, seed: int) -> Checkpoint:
    """The model with two more parts of sentence-transformers, one of them with weights."""
    folders = ("", "1_Pooling", "2_Dense")
    modules = [{"idx": index, "name": str(index), "path": path, "type": "x"} for index, path in enumerate(folders)]
    (model.folder / "modules.json").write_text(json.dumps(modules))
    for folder in folders[1:]:
        (model.folder / folder).mkdir()
        (model.folder / folder / "config.json").write_text("{}")
    save_file({"linear.weight": draw(seed)["layers.0.w.weight"]}, model.folder / "2_Dense/model.safetensors")
    paths = [path for path in sorted(model.folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(model.folder).as_posix(): hash_file(path) for path in paths}
    return describe_folder(model.name, model.name, model.folder, files)
