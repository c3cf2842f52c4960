"""A folder to S3: skipped by content, proven by S3, and complete only when everything is there."""

import logging
import threading
from collections import Counter
from pathlib import Path

import pytest
from s3_server import S3Server

from tasks.errors import StoreError, TransientStoreError
from tasks.stores.s3.store import S3Store
from tasks.stores.store import Content, content_of

MANIFEST = content_of(b"{}")


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    return S3Store("s3://models/releases", part_size=1000, page_size=2)


def sent(s3: S3Server) -> Counter[str]:
    """Requests that wrote, by operation; the log is begun anew."""
    found = Counter(request.operation for request in s3.requests if request.method in ("PUT", "POST", "DELETE"))
    s3.requests.clear()
    return found


def test_an_uploaded_folder_is_there_byte_for_byte(s3: S3Server, store: S3Store, weights: Content, caplog):
    contents = {"deep/model.safetensors": weights, "README.md": content_of(b"card"), "manifest.json": MANIFEST}
    with caplog.at_level(logging.INFO, "tasks.stores"):
        store.upload("demo/versions/v1", contents, last="manifest.json")
    assert isinstance(weights.source, Path)
    assert store.read_bytes("demo/versions/v1/deep/model.safetensors") == weights.source.read_bytes()
    assert store.list_files("demo/versions/v1") == {"README.md": 4, "deep/model.safetensors": 3500, "manifest.json": 2}
    assert all(store.holds(f"demo/versions/v1/{name}", content.digest) for name, content in contents.items())
    assert s3.requests[0].operation == "GetObject"
    # Two small files, and four parts of the large one; 4 + 2 + 3500 bytes.
    expected = {"PutObject": 2, "CreateMultipartUpload": 1, "UploadPart": 4, "CompleteMultipartUpload": 1}
    assert sent(s3) == expected
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("uploaded s3://models/releases/demo/versions/v1: 3 files, 0 of them were there, 3506 bytes")


def test_uploading_again_restores_lost_and_damaged_files_and_leaves_the_others_alone(
    s3: S3Server, store: S3Store, weights: Content
):
    contents = {name: content_of(name.encode()) for name in ("a", "b", "c")}
    contents |= {"model.safetensors": weights, "manifest.json": MANIFEST}
    store.upload("v1", contents, last="manifest.json")
    s3.client().delete_object(Bucket="models", Key="releases/v1/a")
    s3.client().put_object(Bucket="models", Key="releases/v1/b", Body=b"B")
    sent(s3)
    store.upload("v1", contents, last="manifest.json")
    assert sent(s3) == {"PutObject": 2}
    assert [store.read_bytes(f"v1/{name}") for name in ("a", "b", "c")] == [b"a", b"b", b"c"]
    store.upload("v1", contents, last="manifest.json")
    assert sent(s3) == {}


def test_a_standing_manifest_is_never_replaced(s3: S3Server, store: S3Store):
    store.upload("v1", {"manifest.json": MANIFEST}, last="manifest.json")
    other = {"a": content_of(b"a"), "manifest.json": content_of(b"{ }")}
    with pytest.raises(StoreError, match=r"releases/v1/manifest\.json: .*another run has released this version"):
        store.upload("v1", other, last="manifest.json")
    assert store.list_files("v1") == {"manifest.json": 2}


def test_a_manifest_that_was_copied_without_its_notes_is_known_by_its_bytes(s3: S3Server, store: S3Store):
    s3.client().put_object(Bucket="models", Key="releases/v1/manifest.json", Body=b"{}")
    store.upload("v1", {"manifest.json": MANIFEST}, last="manifest.json")
    assert sent(s3) == {"PutObject": 1}


def test_a_manifest_that_appears_during_the_upload_wins(s3: S3Server, store: S3Store):
    def upload_while_another_run_is_first(theirs: bytes) -> None:
        # The last request before the manifest is written is the check that it is not there: it is told so.
        s3.client().put_object(Bucket="models", Key="releases/v1/manifest.json", Body=theirs)
        s3.fail("GetObject", "status", status=404, code="NoSuchKey")
        store.upload("v1", {"manifest.json": MANIFEST}, last="manifest.json")

    upload_while_another_run_is_first(MANIFEST.source)
    with pytest.raises(StoreError, match="another run has released this version"):
        upload_while_another_run_is_first(b"theirs")
    assert store.read_bytes("v1/manifest.json") == b"theirs"


def test_a_manifest_that_another_run_is_writing_at_this_moment_is_left_to_it(s3: S3Server, store: S3Store):
    s3.fail("PutObject", "status", status=409, code="ConditionalRequestConflict")
    with pytest.raises(TransientStoreError, match=r"v1/manifest\.json: another run is writing it .*; run again"):
        store.upload("v1", {"manifest.json": MANIFEST}, last="manifest.json")


def test_a_manifest_whose_answer_was_lost_is_known_by_its_content(s3: S3Server, store: S3Store):
    s3.fail("PutObject", "applied_then_lost")
    store.upload("v1", {"manifest.json": MANIFEST}, last="manifest.json")
    assert [request.status for request in s3.requests if request.operation == "PutObject"] == [0, 412]
    assert store.read_bytes("v1/manifest.json") == b"{}"


def test_a_small_file_whose_answer_was_lost_is_there(s3: S3Server, store: S3Store):
    s3.fail("PutObject", "applied_then_lost", key_contains="config")
    store.upload("v1", {"config.json": content_of(b"1"), "manifest.json": MANIFEST}, last="manifest.json")
    assert store.list_files("v1") == {"config.json": 1, "manifest.json": 2}


def test_sources_that_are_gone_or_of_another_size_are_all_named_before_anything_is_sent(
    s3: S3Server, store: S3Store, tmp_path: Path
):
    (tmp_path / "short").write_bytes(b"12")
    contents = {
        "a": Content(tmp_path / "gone", MANIFEST.digest),
        "b": Content(tmp_path / "short", content_of(b"123").digest),
        "manifest.json": MANIFEST,
    }
    with pytest.raises(
        StoreError, match=r"nothing was uploaded: .*gone: cannot be read: .*short: expected 3 .* found 2"
    ):
        store.upload("v1", contents, last="manifest.json")
    assert s3.requests == []


@pytest.mark.parametrize("part_size", [1000, 10_000])
def test_a_source_that_is_not_what_was_announced_never_becomes_a_release(
    s3: S3Server, weights: Content, part_size: int
):
    assert isinstance(weights.source, Path)
    store = S3Store("s3://models/releases", part_size=part_size)
    edited = bytearray(weights.source.read_bytes())
    edited[1500] ^= 1
    weights.source.write_bytes(edited)
    with pytest.raises(StoreError, match=r"model\.safetensors: expected sha256 .*; it changed while it was released"):
        store.upload("v1", {"model.safetensors": weights, "manifest.json": MANIFEST}, last="manifest.json")
    assert store.list_files("v1") == {}
    # Nor is an upload left that could be taken up.
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket="models")


@pytest.mark.parametrize("part_size", [1000, 10_000])
def test_a_source_that_vanishes_is_named(store: S3Store, weights: Content, part_size: int, monkeypatch):
    import tasks.stores.s3.upload as module

    store = S3Store("s3://models/releases", part_size=part_size)
    check_sizes = module._check_sizes

    def check_and_remove(contents: dict[str, Content]) -> None:
        check_sizes(contents)
        assert isinstance(weights.source, Path)
        weights.source.unlink()

    monkeypatch.setattr(module, "_check_sizes", check_and_remove)
    with pytest.raises(StoreError, match=r"model\.safetensors: cannot be read: .*No such file"):
        store.upload("v1", {"model.safetensors": weights, "manifest.json": MANIFEST}, last="manifest.json")


def test_bytes_that_are_not_what_was_announced_are_refused(store: S3Store):
    contents = {"a": Content(b"abd", content_of(b"abc").digest), "manifest.json": MANIFEST}
    with pytest.raises(StoreError, match="memory: expected sha256"):
        store.upload("v1", contents, last="manifest.json")
    assert store.list_files("v1") == {}


def test_who_lists_while_an_upload_goes_on_never_sees_the_manifest_before_all_other_files(
    s3: S3Server, store: S3Store, weights: Content
):
    contents = {f"file-{number:02}": content_of(bytes([number])) for number in range(12)}
    contents |= {"a-manifest.json": MANIFEST, "model.safetensors": weights}
    ended, seen = threading.Event(), set[int]()

    def watch() -> None:
        while not ended.is_set():
            # One page, so that a listing is of one moment.
            page = reader.list_objects_v2(Bucket="models", Prefix="releases/v1/").get("Contents", [])
            names = {entry["Key"].rpartition("/")[2] for entry in page}
            seen.add(len(names) if "a-manifest.json" in names else 0)

    reader = s3.client()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        store.upload("v1", contents, last="a-manifest.json")
    finally:
        ended.set()
        thread.join()
    assert seen <= {0, 14}
    assert len(store.list_files("v1")) == 14
