"""Downloads that break off, are damaged on the way, or change while they are read."""

import pytest
from s3_server import S3Server

from tasks.errors import TransientStoreError
from tasks.stores.s3.store import S3Store
from tasks.stores.store import content_of


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    return S3Store("s3://models/releases")


def test_a_download_that_breaks_off_goes_on_where_it_was(s3: S3Server, store: S3Store, monkeypatch):
    monkeypatch.setattr("tasks.stores.s3.stream._CHUNK_BYTES", 100)
    data = bytes(range(256)) * 40
    store.write_bytes("weights", data)
    s3.fail("GetObject", "truncate", times=3)
    assert store.compute_digest("weights") == content_of(data).digest
    statuses = [request.status for request in s3.requests if request.operation == "GetObject"]
    assert statuses == [200, 206, 206, 206]


def test_an_object_that_is_replaced_while_it_is_read_is_read_anew(s3: S3Server, store: S3Store, monkeypatch):
    monkeypatch.setattr("tasks.stores.s3.stream._CHUNK_BYTES", 100)
    store.write_bytes("weights", bytes(1000))
    s3.fail("GetObject", "truncate")
    # What S3 answers to a range of an object that has another ETag by now.
    s3.fail("GetObject", "status", status=412, code="PreconditionFailed")
    assert store.compute_digest("weights") == content_of(bytes(1000)).digest


def test_a_byte_that_flips_on_the_way_does_not_condemn_an_object_without_checksum(s3: S3Server, store: S3Store):
    digest = content_of(bytes(1000)).digest
    upload = {"Bucket": "models", "Key": "releases/weights"}
    client = s3.client()
    started = client.create_multipart_upload(**upload, Metadata={"sha256": digest.sha256})
    part = client.upload_part(**upload, UploadId=started["UploadId"], PartNumber=1, Body=bytes(1000))
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(**upload, UploadId=started["UploadId"], MultipartUpload=parts)
    for read in (store.compute_digest, lambda path: content_of(store.read_bytes(path)).digest):
        s3.fail("GetObject", "flip")
        assert read("weights") == digest


def test_an_object_that_is_not_what_it_was_stored_as_shows_its_real_digest(s3: S3Server, store: S3Store):
    s3.client().put_object(Bucket="models", Key="releases/a", Body=b"abd", Metadata={"sha256": "0" * 64})
    assert store.compute_digest("a") == content_of(b"abd").digest
    with pytest.raises(TransientStoreError, match=r"releases/a.*do not have the sha256 of its metadata"):
        store.read_bytes("a")


def test_an_object_that_is_replaced_again_and_again_is_told(s3: S3Server, store: S3Store, monkeypatch):
    monkeypatch.setattr("tasks.stores.s3.stream._CHUNK_BYTES", 100)
    store.write_bytes("weights", bytes(1000))
    for _ in range(3):
        s3.fail("GetObject", "truncate")
        s3.fail("GetObject", "status", status=412, code="PreconditionFailed")
    with pytest.raises(TransientStoreError, match="failed 5 times"):
        store.compute_digest("weights")


def test_a_service_that_knows_no_ranges_is_read_from_the_start(s3: S3Server, store: S3Store, monkeypatch):
    from tasks.remote.s3 import s3_client

    def drop_range(params: dict[str, dict[str, str]], **_: object) -> None:
        params["headers"].pop("Range", None)

    monkeypatch.setattr("tasks.stores.s3.stream._CHUNK_BYTES", 100)
    store.write_bytes("weights", bytes(range(250)) * 4)
    s3.fail("GetObject", "truncate")
    events = s3_client().meta.events
    events.register("before-call.s3.GetObject", drop_range)
    try:
        assert store.compute_digest("weights") == content_of(bytes(range(250)) * 4).digest
    finally:
        events.unregister("before-call.s3.GetObject", drop_range)
    assert [request.status for request in s3.requests if request.operation == "GetObject"] == [200, 200]
