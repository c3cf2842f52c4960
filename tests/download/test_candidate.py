import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from manifests import minimal_manifest
from s3_server import S3Server
from safetensors.numpy import save_file
from seeding import put_on_hub, put_on_s3
from small_adapters import write_adapter

from tasks.cache import ResultCache
from tasks.checkpoint import describe_folder
from tasks.digests import hash_file
from tasks.download.candidate import download_checkpoint
from tasks.errors import InputError, NotFoundError, StoreError
from tasks.plan.adapters import resolve_adapter
from tasks.plan.resolve import resolve_checkpoint
from tasks.records import Checkpoint, to_json


@pytest.fixture
def planned(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    return describe_folder("news", str(folder), folder, files)


def test_a_folder_that_did_not_change_is_taken_as_it_is(planned: Checkpoint, tmp_path: Path):
    assert download_checkpoint(planned, ResultCache(tmp_path / "cache")) == planned


def test_all_files_that_changed_since_planning_are_named(planned: Checkpoint, tmp_path: Path):
    (planned.folder / "config.json").unlink()
    (planned.folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError) as caught:
        download_checkpoint(planned, ResultCache(tmp_path / "cache"))
    message = str(caught.value)
    assert message.startswith(f"news: {planned.folder} changed since it was planned:\n")
    assert "config.json: cannot be read: No such file or directory" in message
    # sha256 of the two contents, by sha256sum
    assert "model.safetensors: planned sha256 9a129038d9a0... (7 bytes), found 01db91d06032... (6 bytes)" in message
    assert "run again" in message


def test_a_new_file_of_the_same_length_is_noticed(planned: Checkpoint, tmp_path: Path):
    cache = ResultCache(tmp_path / "cache")
    download_checkpoint(planned, cache)
    (planned.folder / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(InputError, match=r"model\.safetensors: planned sha256"):
        download_checkpoint(planned, cache)


def test_files_that_were_added_later_do_not_matter(planned: Checkpoint, tmp_path: Path):
    (planned.folder / "notes.txt").write_text("new")
    assert download_checkpoint(planned, ResultCache(tmp_path / "cache")) == planned


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in the layout of the Hub, with a note that is no part of it."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    (folder / "README.md").write_text("a card")
    save_file({"a": np.arange(6, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def test_what_was_planned_on_the_hub_is_brought_here_though_the_branch_moved(
    folder: Path, cache: ResultCache, hub: HubServer
):
    put_on_hub(hub, "org/news", folder)
    planned = resolve_checkpoint("news", "org/news", None, cache)
    hub.commit("org/news", {"config.json": b"other", "model.safetensors": b"other"})
    found = download_checkpoint(planned, cache)
    assert found == replace(planned, uri=found.uri)
    assert sorted(found.files) == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert all((found.folder / path).read_bytes() == (folder / path).read_bytes() for path in found.files)


def test_a_folder_of_a_repository_is_a_model_too(folder: Path, cache: ResultCache, hub: HubServer):
    hub.create_repo("org/zoo")
    hub.commit("org/zoo", {f"news/{path.name}": path.read_bytes() for path in folder.glob("*.*") if path.is_file()})
    planned = resolve_checkpoint("news", "hub://org/zoo/news@main", None, cache)
    assert planned.uri == f"hub://org/zoo/news@{hub.head('org/zoo')}"
    found = download_checkpoint(planned, cache)
    assert (found.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_prefix_on_s3_is_brought_here_with_progress(folder: Path, cache: ResultCache, s3: S3Server):
    put_on_s3(s3, "s3://models/news", folder)
    planned = resolve_checkpoint("news", "s3://models/news", None, cache)
    reports: list[tuple[int, int]] = []
    found = download_checkpoint(planned, cache, lambda done, total: reports.append((done, total)))
    assert all((found.folder / path).read_bytes() == (folder / path).read_bytes() for path in found.files)
    assert reports[-1] == (found.size, found.size)
    s3.requests.clear()
    assert download_checkpoint(planned, cache) == found
    assert {request.operation for request in s3.requests} <= {"ListObjectsV2"}


def test_a_release_on_s3_is_brought_here(folder: Path, cache: ResultCache, s3: S3Server, tmp_path: Path):
    version = tmp_path / "demo" / "versions" / "20260101-0123456789ab"
    version.parent.mkdir(parents=True)
    folder.rename(version)
    files = {path.relative_to(version).as_posix(): path for path in version.rglob("*") if path.is_file()}
    digests = {name: to_json(hash_file(path)) for name, path in files.items()}
    manifest = {"name": "demo", **minimal_manifest(version.name, 1, "0" * 64, digests)}
    (version / "manifest.json").write_text(json.dumps(manifest))
    put_on_s3(s3, "s3://models/demo", tmp_path / "demo", with_sha256=False)
    planned = resolve_checkpoint("old", f"release:s3://models/demo@{version.name}", None, cache)
    found = download_checkpoint(planned, cache)
    assert all((found.folder / path).read_bytes() == files[path].read_bytes() for path in found.files)


def test_a_file_that_is_gone_and_a_repository_that_is_gone_are_told_with_the_candidates_name(
    folder: Path, cache: ResultCache, hub: HubServer, s3: S3Server
):
    put_on_hub(hub, "org/news", folder)
    put_on_s3(s3, "s3://models/law", folder)
    news = resolve_checkpoint("news", "org/news", None, cache)
    law = resolve_checkpoint("law", "s3://models/law", None, cache)
    hub.delete_repo("org/news")
    with pytest.raises(
        NotFoundError, match=r"news: org/news is no longer what was planned \(hub://org/news@\w+\): .*plan"
    ):
        download_checkpoint(news, cache)
    s3.client().delete_object(Bucket="models", Key="law/model.safetensors")
    with pytest.raises(
        NotFoundError, match=r"law: s3://models/law is no longer .* there is no file 'model.safetensors'"
    ):
        download_checkpoint(law, cache)


def test_an_object_that_was_replaced_since_planning_is_refused(folder: Path, cache: ResultCache, s3: S3Server):
    put_on_s3(s3, "s3://models/law", folder)
    law = resolve_checkpoint("law", "s3://models/law", None, cache)
    save_file({"a": np.ones(6, np.float32)}, folder / "model.safetensors")
    put_on_s3(s3, "s3://models/law", folder)
    with pytest.raises(StoreError, match=r"law: s3://models/law cannot .*: the file changed: .*run again to plan with"):
        download_checkpoint(law, cache)


def test_bytes_that_are_damaged_on_their_way_never_become_a_model(folder: Path, cache: ResultCache, hub: HubServer):
    put_on_hub(hub, "org/news", folder)
    planned = resolve_checkpoint("news", "org/news", None, cache)
    hub.fail("lfs_get", "flip", None)
    with pytest.raises(
        StoreError, match=r"news: .*model\.safetensors of hub://org/news@\w+: the content is not what it should"
    ):
        download_checkpoint(planned, cache)
    assert cache.find_file(planned.files["model.safetensors"]) is None


MODULES = {"model.layers.0.self_attn.q_proj": (4, 4)}


def with_adapter(planned: Checkpoint, reference: str, cache: ResultCache) -> Checkpoint:
    return replace(planned, adapter=replace(resolve_adapter(reference, cache).checkpoint, name="news adapter"))


def test_a_model_and_its_adapter_are_both_brought_here(
    folder: Path, cache: ResultCache, hub: HubServer, s3: S3Server, tmp_path: Path
):
    lora = write_adapter(tmp_path / "lora", MODULES)
    put_on_hub(hub, "org/lora", lora)
    put_on_s3(s3, "s3://models/news", folder)
    elsewhere = ResultCache(tmp_path / "elsewhere")
    planned = with_adapter(resolve_checkpoint("news", "s3://models/news", None, elsewhere), "org/lora", elsewhere)
    reports: list[tuple[int, int]] = []
    found = download_checkpoint(planned, cache, lambda done, total: reports.append((done, total)))
    assert found.digest == planned.digest
    assert found.adapter is not None
    assert (found.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert {path.name for path in found.adapter.folder.iterdir()} == {path.name for path in lora.iterdir()}
    assert all((found.adapter.folder / path).read_bytes() == (lora / path).read_bytes() for path in found.adapter.files)
    assert reports[-1] == (found.without_adapter.size, found.without_adapter.size)


def test_an_adapter_that_changed_since_planning_is_named(planned: Checkpoint, cache: ResultCache, tmp_path: Path):
    lora = write_adapter(tmp_path / "lora", MODULES)
    both = with_adapter(planned, str(lora), cache)
    assert download_checkpoint(both, cache) == both
    (lora / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"^news adapter: .*lora changed since it was planned:\n.*adapter_config.json"):
        download_checkpoint(both, cache)
