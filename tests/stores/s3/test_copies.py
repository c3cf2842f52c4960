"""Copies that S3 makes by itself: what stands there afterwards, and what is refused."""

from collections.abc import Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import S3Server

from tasks.digests import hash_bytes
from tasks.errors import NotFoundError, StoreError
from tasks.records import FileDigest
from tasks.remote.s3 import parse_s3
from tasks.stores.folder import FolderStore
from tasks.stores.s3.copies import Copy, copy_objects
from tasks.stores.s3.objects import S3Objects
from tasks.stores.s3.store import S3Store
from tasks.stores.s3.upload import upload_file
from tasks.stores.store import Content, content_of

DATA = bytes(range(256)) * 40
DIGEST = hash_bytes(DATA)


@pytest.fixture
def s3(s3: S3Server) -> S3Server:
    """With two buckets."""
    for name in ("work", "releases"):
        s3.create_bucket(name)
    return s3


@pytest.fixture
def pool() -> Generator[Executor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture
def objects(s3: S3Server) -> S3Objects:
    return S3Objects(parse_s3("s3://releases/demo"), page_size=1000)


@pytest.fixture
def source(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An object that was sent in parts, so that S3 has no sha256 of it as a whole."""
    monkeypatch.setattr("tasks.stores.s3.upload.PART_BYTES", 5000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    (tmp_path / "weights").write_bytes(DATA)
    upload_file(S3Objects(parse_s3("s3://work/merged"), page_size=1000), "a/weights", tmp_path / "weights", DIGEST)
    s3.requests.clear()
    return "s3://work/merged/a/weights"


def read(s3: S3Server, key: str) -> bytes:
    return s3.client().get_object(Bucket="releases", Key=key)["Body"].read()


@pytest.mark.parametrize(("most_bytes", "operation"), [(10**6, "CopyObject"), (4000, "UploadPartCopy")])
def test_a_copy_has_the_bytes_and_says_their_digest(
    s3: S3Server, objects: S3Objects, source: str, pool: Executor, most_bytes: int, operation: str
):
    copies = [Copy(f"v1/{number}", source, DIGEST) for number in range(4)]
    copy_objects(objects, copies, pool, most_bytes)
    for copy in copies:
        assert read(s3, f"demo/{copy.path}") == DATA
        assert objects.find(copy.path) == DIGEST
    done = [request.operation for request in s3.requests]
    assert done.count(operation) == (4 if operation == "CopyObject" else 4 * 3)
    # No byte of it came here.
    assert "PutObject" not in done and "UploadPart" not in done


def test_an_object_that_is_not_there_is_named(objects: S3Objects, source: str, pool: Executor):
    with pytest.raises(NotFoundError, match="s3://work/merged/a/gone, to be copied to s3://releases/demo/x"):
        copy_objects(objects, [Copy("x", "s3://work/merged/a/gone", DIGEST)], pool)


def test_other_bytes_than_were_announced_do_not_stay(s3: S3Server, objects: S3Objects, source: str, pool: Executor):
    other = FileDigest("0" * 64, DIGEST.size)
    with pytest.raises(StoreError, match=r"expected sha256 0000.* its copy s3://releases/demo/x has"):
        copy_objects(objects, [Copy("x", source, other)], pool)
    assert objects.find("x") is None


def test_a_copy_in_parts_that_fails_leaves_no_upload_behind(
    s3: S3Server, objects: S3Objects, source: str, pool: Executor
):
    s3.fail("UploadPartCopy", "status", times=None, status=403)
    with pytest.raises(StoreError):
        copy_objects(objects, [Copy("x", source, DIGEST)], pool, most_bytes=4000)
    assert objects.list_uploads("x") == [] and objects.find("x") is None


def test_a_folder_is_complete_when_its_copies_are(s3: S3Server, source: str):
    store = S3Store("s3://releases/demo")
    contents = {"weights": Content(source, DIGEST), "config.json": content_of(b"{}"), "last": content_of(b"!")}
    s3.fail("CopyObject", "status", times=1, status=403)
    with pytest.raises(StoreError):
        store.upload("v1", contents, last="last")
    assert not store.exists("v1/last")
    store.upload("v1", contents, last="last")
    assert store.holds("v1/weights", DIGEST) and store.exists("v1/last")
    s3.requests.clear()
    store.upload("v1", contents, last="last")
    assert not [request for request in s3.requests if request.operation in ("CopyObject", "PutObject")]


def test_another_store_cannot_take_it(source: str, tmp_path: Path):
    contents = {"weights": Content(source, DIGEST), "last": content_of(b"!")}
    with pytest.raises(ValueError, match="s3://work/merged/a/weights is not on this machine"):
        FolderStore(tmp_path / "releases").upload("v1", contents, last="last")
    assert not (tmp_path / "releases/v1").exists()
