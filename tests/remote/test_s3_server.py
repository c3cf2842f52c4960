"""The S3 stand-in does what S3 does and moto does not, as the real client sees it."""

import base64
import hashlib
import io
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from s3_content import check_content, unchunked

OBJECT = {"Bucket": "models", "Key": "a/b"}
MIB = 2**20


def sha256(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.fixture
def client(s3):
    s3.create_bucket("models")
    return s3.client()


def upload_parts(client, *parts, **options):
    """Begin a multipart upload; its id, and the list that completes it."""
    upload = client.create_multipart_upload(**OBJECT, **options)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        answer = client.upload_part(**OBJECT, UploadId=upload, PartNumber=number, Body=part, **options)
        done.append({"ETag": answer["ETag"], "PartNumber": number})
    return {"UploadId": upload, "MultipartUpload": {"Parts": done}}


@pytest.mark.parametrize(
    "promise",
    [{"ChecksumSHA256": sha256(b"other")}, {"ChecksumCRC32": "AAAAAA=="}, {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}],
)
def test_content_that_breaks_a_promise_is_refused(client, promise):
    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(**OBJECT, Body=b"content", **promise)
    assert "Contents" not in client.list_objects_v2(Bucket="models")


def test_a_checksum_is_given_back_until_the_object_is_overwritten(client):
    client.put_object(**OBJECT, Body=b"content", ChecksumSHA256=sha256(b"content"))
    assert client.head_object(**OBJECT, ChecksumMode="ENABLED")["ChecksumSHA256"] == sha256(b"content")
    assert "ChecksumSHA256" not in client.head_object(**OBJECT)
    client.copy_object(Bucket="models", Key="copy", CopySource=OBJECT)
    assert client.head_object(Bucket="models", Key="copy", ChecksumMode="ENABLED")["ChecksumSHA256"]
    client.put_object(**OBJECT, Body=b"content")
    head = client.head_object(**OBJECT, ChecksumMode="ENABLED")
    # CRC32 is what boto3 sends by itself.
    assert ("ChecksumSHA256" in head, "ChecksumCRC32" in head) == (False, True)


def test_an_object_made_of_parts_has_a_checksum_of_checksums(client):
    parts = [bytes(5 * MIB), b"end"]
    client.complete_multipart_upload(**OBJECT, **upload_parts(client, *parts, ChecksumAlgorithm="SHA256"))
    head = client.head_object(**OBJECT, ChecksumMode="ENABLED")
    joined = b"".join(hashlib.sha256(part).digest() for part in parts)
    assert head["ChecksumSHA256"] == f"{sha256(joined)}-2"
    assert head["ContentLength"] == 5 * MIB + 3


def test_parts_that_are_listed_have_their_checksums(client):
    upload = upload_parts(client, b"one", ChecksumAlgorithm="SHA256")["UploadId"]
    assert client.list_parts(**OBJECT, UploadId=upload)["Parts"][0]["ChecksumSHA256"] == sha256(b"one")


def test_an_upload_is_not_completed_over_what_stands_there(client, s3):
    client.put_object(**OBJECT, Body=b"first")
    done = upload_parts(client, b"second")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.complete_multipart_upload(**OBJECT, **done, IfNoneMatch="*")
    assert len(client.list_multipart_uploads(Bucket="models")["Uploads"]) == 1
    assert client.get_object(**OBJECT)["Body"].read() == b"first"


def test_of_many_conditional_writes_one_wins(client):
    def write(number):
        try:
            client.put_object(**OBJECT, Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == ["PreconditionFailed"] * 7 + ["won"]


def test_a_store_may_ignore_conditions(client, s3):
    s3.ignore_conditions = True
    for body in (b"1", b"2"):
        client.put_object(**OBJECT, Body=body, IfNoneMatch="*", ServerSideEncryption="aws:kms")
    assert client.get_object(**OBJECT)["Body"].read() == b"2"
    # What was dropped is in the log nevertheless.
    assert s3.requests[1] == (
        "PUT", "/models/a/b", "PutObject", 200, {"If-None-Match": "*", "x-amz-server-side-encryption": "aws:kms"},
    )  # fmt: skip


def test_a_lost_answer_has_done_its_work(client, s3):
    fault = s3.fail("DeleteObjects", "applied_then_lost", times=None)
    client.put_object(**OBJECT, Body=b"1")
    with pytest.raises(ConnectionClosedError):
        client.delete_objects(Bucket="models", Delete={"Objects": [{"Key": "a/b"}]})
    assert "Contents" not in client.list_objects_v2(Bucket="models")
    assert {request.status for request in s3.requests if request.operation == "DeleteObjects"} == {0}
    assert fault.seen > 1


def test_faults_hit_the_keys_that_are_meant(client, s3):
    s3.fail("GetObject", "status", status=403, key_contains="/a/", times=None)
    client.put_object(**OBJECT, Body=b"1")
    client.put_object(Bucket="models", Key="b", Body=b"2")
    assert client.get_object(Bucket="models", Key="b")["Body"].read() == b"2"
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(**OBJECT)
    s3.clear()
    assert s3.requests == []
    with pytest.raises(ClientError, match="NoSuchBucket"):
        client.get_object(**OBJECT)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("GetObjects", "reset"), "no operation 'GetObjects'; operations: AbortMultipartUpload, "),
        (("GetObject", "burn"), "no kind of fault 'burn'; kinds: status, reset, truncate"),
    ],
)
def test_a_fault_that_can_never_hit_is_a_mistake(s3, fault, message):
    with pytest.raises(ValueError, match=message):
        s3.fail(*fault)
    with pytest.raises(ValueError, match=r"reset has no option \['status'\]; options: \[\]"):
        s3.fail("GetObject", "reset", status=500)


def test_ranges_and_file_transfers_work_with_names_that_need_quoting(client, tmp_path):
    data = bytes(range(256)) * 40_000
    key = "a b/ü+%.bin"
    client.upload_fileobj(io.BytesIO(data), "models", key)
    client.download_file("models", key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert client.get_object(Bucket="models", Key=key, Range="bytes=255-257")["Body"].read() == b"\xff\x00\x01"


def test_trailers_of_a_chunked_body_are_checked():
    # As boto3 sends it over TLS: sizes in hexadecimal, the checksum after the last chunk.
    framed = b"4\r\ncont\r\n3;chunk-signature=f00\r\nent\r\n0\r\nx-amz-checksum-sha1:" + b"BA==\r\n\r\n"
    assert unchunked(framed) == (b"content", {"x-amz-checksum-sha1": "BA=="})
    sha1 = base64.b64encode(hashlib.sha1(b"content").digest()).decode()
    assert check_content(b"content", {}, {"x-amz-checksum-sha1": sha1}) == {"x-amz-checksum-sha1": sha1}


def test_a_chunked_body_is_stored_without_its_frames(s3, client):
    body = f"7\r\ncontent\r\n0\r\nx-amz-checksum-sha256:{sha256(b'content')}\r\n\r\n"
    head = (
        f"PUT /models/a/b HTTP/1.1\r\nHost: s3\r\nConnection: close\r\nContent-Encoding: aws-chunked\r\n"
        f"x-amz-trailer: x-amz-checksum-sha256\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, _, port = s3.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + body).encode())
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert client.get_object(**OBJECT)["Body"].read() == b"content"
    assert client.head_object(**OBJECT, ChecksumMode="ENABLED")["ChecksumSHA256"] == sha256(b"content")


def test_a_delay_does_not_need_sleep(client, s3, pauses):
    s3.fail("HeadObject", "delay", seconds=0.1)
    client.put_object(**OBJECT, Body=b"1")
    started = time.monotonic()
    client.head_object(**OBJECT)
    assert time.monotonic() - started >= 0.1
    assert pauses == []


def test_a_request_that_was_given_up_does_nothing_after_its_test(client, s3):
    client.put_object(**OBJECT, Body=b"1")
    delayed = s3.fail("DeleteObject", "delay", seconds=0.1)
    with ThreadPoolExecutor(1) as pool:
        given_up = pool.submit(client.delete_object, **OBJECT)
        while not delayed.seen:
            time.sleep(0.001)
        s3.clear()
        s3.create_bucket("models")
        # The client tries again what was reset.
        given_up.result()
    assert [(request.operation, request.status) for request in s3.requests] == [("DeleteObject", 204)]
