"""Large files to S3: in parts, taken up again, and one whole object of the right content at the end."""

import base64
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from tasks.digests import hash_file
from tasks.errors import StoreError, TransientStoreError
from tasks.stores.s3.store import S3Store
from tasks.stores.store import Content, content_of

MANIFEST = content_of(b"{}")
KEY = "releases/v1/model.safetensors"


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    return S3Store("s3://models/releases", part_size=1000)


@pytest.fixture
def upload(store: S3Store, weights: Content) -> Callable[[], None]:
    contents = {"model.safetensors": weights, "manifest.json": MANIFEST}
    return lambda: store.upload("v1", contents, last="manifest.json")


def statuses(s3: S3Server, operation: str) -> list[int]:
    return [request.status for request in s3.requests if request.operation == operation]


def unfinished(s3: S3Server) -> list[dict[str, Any]]:
    return s3.client().list_multipart_uploads(Bucket="models").get("Uploads", [])


def begin(s3: S3Server, parts: dict[int, bytes], **metadata: str) -> None:
    """An upload that another run left behind."""
    client, place = s3.client(), {"Bucket": "models", "Key": KEY}
    upload_id = client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256", Metadata=metadata)["UploadId"]
    for number, data in parts.items():
        client.upload_part(**place, UploadId=upload_id, PartNumber=number, Body=data, ChecksumAlgorithm="SHA256")
    s3.requests.clear()


def part(weights: Content, number: int) -> bytes:
    assert isinstance(weights.source, Path)
    return weights.source.read_bytes()[1000 * (number - 1) : 1000 * number]


def check_released(s3: S3Server, store: S3Store, weights: Content) -> None:
    assert store.holds("v1/model.safetensors", weights.digest)
    assert store.compute_digest("v1/model.safetensors") == weights.digest
    assert store.exists("v1/manifest.json")
    assert unfinished(s3) == []


def test_an_upload_that_ended_in_the_middle_is_taken_up_and_only_missing_parts_are_sent(
    s3: S3Server, store: S3Store, weights: Content, upload, monkeypatch
):
    monkeypatch.setattr("tasks.stores.s3.multipart.WORKERS", 1)
    # Parts 1 and 2 pass, and then the network is gone for good.
    send = s3.fail("UploadPart", "delay", times=2, seconds=0)
    gone = s3.fail("UploadPart", "reset", times=None)
    with pytest.raises(
        TransientStoreError, match=r"releases/v1/model\.safetensors.* cannot be reached after 5 attempts"
    ):
        upload()
    assert (send.seen, gone.seen) == (2, 5)
    assert not store.exists("v1")
    gone.times = 0
    s3.requests.clear()
    upload()
    assert statuses(s3, "CreateMultipartUpload") == []
    assert statuses(s3, "UploadPart") == [200, 200]
    check_released(s3, store, weights)


@pytest.mark.parametrize("listed", ["ChecksumSHA256", "ETag"])
def test_parts_are_known_by_sha256_or_by_md5_where_s3_lists_no_checksums(
    s3: S3Server, store: S3Store, weights: Content, upload, listed: str
):
    from tasks.remote.s3 import s3_client

    def keep_only(parsed: dict[str, Any], **_: object) -> None:
        for entry in parsed.get("Parts", []):
            checksum = base64.b64encode(hashlib.sha256(part(weights, entry["PartNumber"])).digest()).decode()
            entry.pop("ChecksumSHA256", None)
            if listed == "ChecksumSHA256":
                entry["ChecksumSHA256"] = checksum

    begin(s3, {1: part(weights, 1), 2: part(weights, 2)}, sha256=weights.digest.sha256)
    events = s3_client().meta.events
    events.register("after-call.s3.ListParts", keep_only)
    try:
        upload()
    finally:
        events.unregister("after-call.s3.ListParts", keep_only)
    assert statuses(s3, "UploadPart") == [200, 200]
    check_released(s3, store, weights)


def test_an_unfinished_upload_of_other_content_is_dropped(s3: S3Server, store: S3Store, weights: Content, upload):
    begin(s3, {1: bytes(1000), 2: part(weights, 2)})
    begin(s3, {1: bytes(10)})
    upload()
    assert statuses(s3, "CreateMultipartUpload") == [200]
    check_released(s3, store, weights)


def test_an_unfinished_upload_that_begins_alike_but_was_of_another_file_leaves_no_wrong_object(
    s3: S3Server, store: S3Store, weights: Content, upload
):
    # Its first part is ours, so it is taken up; only the object shows the sha256 that it was begun with.
    begin(s3, {1: part(weights, 1)}, sha256="0" * 64)
    upload()
    assert statuses(s3, "CompleteMultipartUpload") == [200, 200]
    check_released(s3, store, weights)


def test_uploads_that_another_tool_began_are_not_taken_up(s3: S3Server, store: S3Store, weights: Content, upload):
    client, place = s3.client(), {"Bucket": "models", "Key": KEY}
    theirs = client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32")["UploadId"]
    client.upload_part(**place, UploadId=theirs, PartNumber=1, Body=part(weights, 1), ChecksumAlgorithm="CRC32")
    s3.requests.clear()
    upload()
    assert statuses(s3, "CreateMultipartUpload") == [200]
    check_released(s3, store, weights)


@pytest.mark.parametrize(
    "operation",
    [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "ListMultipartUploads",
        "AbortMultipartUpload",
        "ListParts",
    ],
)
@pytest.mark.parametrize("kind", ["reset", "status", "applied_then_lost"])
def test_a_fault_that_passes_is_waited_out(
    s3: S3Server, store: S3Store, weights: Content, upload, operation: str, kind: str
):
    if operation in ("AbortMultipartUpload", "ListParts"):
        begin(s3, {1: bytes(1000)})
    fault = s3.fail(operation, kind, times=2)
    upload()
    assert fault.seen == 2
    check_released(s3, store, weights)


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_fault_that_does_not_pass_is_told_and_leaves_no_release(s3: S3Server, store: S3Store, upload, operation: str):
    s3.fail(operation, "status", times=None, status=503)
    with pytest.raises(TransientStoreError, match=r"s3://models/releases/v1/model\.safetensors.*after 5 attempts"):
        upload()
    assert not store.exists("v1")


def test_expired_credentials_are_told_and_not_tried_again(s3: S3Server, upload):
    fault = s3.fail("CreateMultipartUpload", "status", times=None, status=400, code="ExpiredToken")
    with pytest.raises(StoreError, match="credentials for S3 have expired"):
        upload()
    assert fault.seen == 1


def test_a_part_that_flips_on_the_way_is_refused_and_sent_again(s3: S3Server, store: S3Store, weights, upload):
    flip = s3.fail("UploadPart", "flip", times=2, direction="upload")
    upload()
    assert flip.seen == 2
    assert sorted(statuses(s3, "UploadPart")) == [200] * 4 + [400] * 2
    check_released(s3, store, weights)


def test_a_completion_whose_repetition_finds_no_upload_is_known_by_the_object(
    s3: S3Server, store: S3Store, weights: Content, upload
):
    s3.fail("CompleteMultipartUpload", "applied_then_lost")
    # moto knows completed uploads for ever; S3 does not.
    s3.fail("CompleteMultipartUpload", "status", status=404, code="NoSuchUpload")
    upload()
    assert statuses(s3, "CompleteMultipartUpload") == [0, 404]
    check_released(s3, store, weights)


def test_an_upload_that_another_run_aborts_is_begun_anew(s3: S3Server, store: S3Store, weights: Content, upload):
    s3.fail("UploadPart", "status", status=404, code="NoSuchUpload")
    upload()
    check_released(s3, store, weights)


def test_an_upload_that_vanishes_before_its_parts_are_listed_is_not_taken_up(
    s3: S3Server, store: S3Store, weights: Content, upload
):
    begin(s3, {1: part(weights, 1)})
    s3.fail("ListParts", "status", status=404, code="NoSuchUpload")
    upload()
    assert statuses(s3, "UploadPart") == [200] * 4
    check_released(s3, store, weights)


def test_runs_that_abort_each_other_end_with_words(s3: S3Server, store: S3Store, upload):
    s3.fail("CompleteMultipartUpload", "status", times=None, status=404, code="NoSuchUpload")
    with pytest.raises(StoreError, match=r"3 uploads of .*model\.safetensors did not leave .*; another run seems to"):
        upload()
    assert not store.exists("v1/manifest.json")


def test_two_runs_that_upload_the_same_version_at_once_both_succeed(s3: S3Server, store: S3Store, weights, upload):
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def run() -> None:
        barrier.wait()
        try:
            upload()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_released(s3, store, weights)


def test_parts_grow_where_a_file_would_have_too_many(s3: S3Server, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tasks.stores.s3.multipart._MAX_PARTS", 3)
    file = tmp_path / "large"
    file.write_bytes(bytes(1000))
    store = S3Store("s3://models/releases", part_size=10)
    contents = {"large": Content(file, hash_file(file)), "manifest.json": MANIFEST}
    store.upload("v1", contents, last="manifest.json")
    # 1000 / 3 rounded up is 334.
    assert statuses(s3, "UploadPart") == [200] * 3
    assert store.compute_digest("v1/large") == hash_file(file)


def test_no_more_parts_are_in_memory_than_there_are_workers(s3: S3Server, weights: Content, upload, monkeypatch):
    import tasks.stores.s3.multipart as module

    monkeypatch.setattr(module, "WORKERS", 2)
    held: list[int] = []
    read_parts, send_part = module._read_parts, module._send_part
    open_parts: set[int] = set()

    def read(*arguments: Any):
        for number, data in read_parts(*arguments):
            open_parts.add(number)
            held.append(len(open_parts))
            yield number, data

    def send(objects: Any, path: str, upload: Any, number: int, data: bytes):
        try:
            return send_part(objects, path, upload, number, data)
        finally:
            open_parts.discard(number)

    monkeypatch.setattr(module, "_read_parts", read)
    monkeypatch.setattr(module, "_send_part", send)
    upload()
    assert len(held) == 4
    assert max(held) <= 2
