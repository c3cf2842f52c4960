import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from tasks.cache import ResultCache
from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.remote.access import S3Access
from tasks.sources.fetch import fetch_files, known_digest, known_digests
from tasks.sources.s3 import S3Source

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB.
CONFIG = b'{"model_type": "llama"}\n'
SHA256 = {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest(), "config.json": hashlib.sha256(CONFIG).hexdigest()}


@pytest.fixture
def model(s3: S3Server, s3_client: Any) -> S3Server:
    """S3 with a model under `base/v7`, beside others; requests are counted from here."""
    for path, data in {"v7/model.safetensors": WEIGHTS, "v7/config.json": CONFIG, "v70/config.json": b"{}"}.items():
        s3_client.put_object(Bucket="models", Key=f"base/{path}", Body=data)
    s3_client.put_object(Bucket="models", Key="base/v7/", Body=b"")
    s3.requests.clear()
    return s3


def operations(server: S3Server) -> list[str]:
    return [request.operation for request in server.requests]


def test_the_list_holds_what_is_under_the_prefix_and_nothing_beside_it(model: S3Server):
    source = S3Source("s3://models/base/v7")
    listed = source.list_files()
    assert (source.uri, source.revision) == ("s3://models/base/v7", "")
    assert {path: file.size for path, file in listed.items()} == {
        "config.json": len(CONFIG), "model.safetensors": len(WEIGHTS),
    }  # fmt: skip
    # An ETag of an object that was put at once is its MD5.
    assert listed["config.json"].identity == f"etag:{hashlib.md5(CONFIG).hexdigest()}:{len(CONFIG)}"
    source.list_files()
    assert operations(model) == ["ListObjectsV2"]


def test_lists_of_many_pages_are_read_to_the_end(s3: S3Server):
    for number in range(1003):  # A page holds 1000.
        s3._moto.backend.put_object("models", f"many/{number:04d}", b"")
    assert len(S3Source("s3://models/many").list_files()) == 1003


def test_one_object_can_be_the_source(model: S3Server, cache: ResultCache):
    source = S3Source("s3://models/base/v7/config.json")
    assert list(source.list_files()) == ["config.json"]
    assert fetch_files(source, ["config.json"], cache)["config.json"].path.read_bytes() == CONFIG
    assert source.read_range("config.json", 2, 10) == CONFIG[2:12]


@pytest.mark.parametrize("uri", ["s3://models/base/v8", "s3://nobucket/x"])
def test_a_prefix_without_objects_is_not_found(model: S3Server, uri: str):
    with pytest.raises(NotFoundError, match=uri):
        S3Source(uri).list_files()


def test_an_empty_bucket_is_not_found(s3: S3Server):
    with pytest.raises(NotFoundError, match="s3://models: this bucket is empty"):
        S3Source("s3://models").list_files()


def test_files_are_fetched_whole_and_verified(model: S3Server, cache: ResultCache):
    fetched = fetch_files(S3Source("s3://models/base/v7"), ["model.safetensors", "config.json"], cache)
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert {path: file.digest.sha256 for path, file in fetched.items()} == SHA256


def test_a_second_fetch_only_lists(model: S3Server, cache: ResultCache):
    fetch_files(S3Source("s3://models/base/v7"), SHA256, cache)
    model.requests.clear()
    source = S3Source("s3://models/base/v7")
    assert known_digest(source, "config.json", cache) == fetch_files(source, SHA256, cache)["config.json"].digest
    assert operations(model) == ["ListObjectsV2"]


def test_sha256_that_s3_or_its_metadata_states_is_known_before_a_byte_is_read(
    s3_client: Any, model: S3Server, cache: ResultCache
):
    s3_client.put_object(Bucket="models", Key="base/v7/config.json", Body=CONFIG, ChecksumAlgorithm="SHA256")
    stated = {"sha256": SHA256["model.safetensors"]}
    s3_client.put_object(Bucket="models", Key="base/v7/model.safetensors", Body=WEIGHTS, Metadata=stated)
    s3_client.put_object(Bucket="models", Key="base/v7/vocab.txt", Body=b"a\n", Metadata={"sha256": "unknown"})
    known = known_digests(S3Source("s3://models/base/v7"), ["config.json", "model.safetensors", "vocab.txt"], cache)
    assert {path: digest.sha256 for path, digest in known.items() if digest} == SHA256
    assert "GetObject" not in operations(model)


def test_the_manifest_of_a_release_says_the_sha256_of_its_files_without_asking_for_each(
    s3_client: Any, model: S3Server, cache: ResultCache
):
    files = {path: {"sha256": sha256, "size": len(data)} for (path, sha256), data in zip(
        SHA256.items(), (WEIGHTS, CONFIG), strict=True)}  # fmt: skip
    manifest = json.dumps({"files": files}).encode()
    s3_client.put_object(Bucket="models", Key="base/v7/manifest.json", Body=manifest)
    model.requests.clear()
    source = S3Source("s3://models/base/v7")
    assert {path: source.list_files()[path].sha256 for path in SHA256} == SHA256
    fetch_files(source, SHA256, cache)
    assert operations(model) == ["ListObjectsV2", "GetObject", "GetObject", "GetObject"]


INFINITE = b'{"files": {"config.json": {"sha256": "0", "size": 1e400}}}'


@pytest.mark.parametrize("content", [b"[]", b"\xff", b'{"files": {"config.json": 3}}', b"{}", INFINITE, b"[" * 10**5])
def test_another_file_of_the_manifests_name_changes_nothing(s3_client: Any, model: S3Server, content: bytes):
    s3_client.put_object(Bucket="models", Key="base/v7/manifest.json", Body=content)
    assert S3Source("s3://models/base/v7").list_files()["config.json"].sha256 is None


def test_checksums_of_checksums_are_not_taken_for_the_content(s3_client: Any, s3: S3Server, cache: ResultCache):
    upload = s3_client.create_multipart_upload(Bucket="models", Key="m/a.bin", ChecksumAlgorithm="SHA256")["UploadId"]
    where = {"Bucket": "models", "Key": "m/a.bin", "UploadId": upload}
    parts = [bytes(5 * 2**20), b"end"]
    sent = []
    for number, body in enumerate(parts, start=1):
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        part = s3_client.upload_part(**where, PartNumber=number, Body=body, ChecksumSHA256=checksum)
        sent.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum})
    s3_client.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})
    source = S3Source("s3://models/m")
    assert (source.describe("a.bin").sha256, source.describe("a.bin").checksum) == (None, "")
    assert known_digest(source, "a.bin", cache) is None
    fetched = fetch_files(source, ["a.bin"], cache)["a.bin"]
    assert fetched.digest.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_crc_that_clients_send_by_default_is_the_proof_where_there_is_no_sha256(model: S3Server):
    source = S3Source("s3://models/base/v7")
    assert source.describe("config.json").checksum == f"crc32:{zlib.crc32(CONFIG):08x}"


def test_a_flipped_byte_is_noticed_and_the_file_fetched_anew(
    model: S3Server, cache: ResultCache, caplog: pytest.LogCaptureFixture
):
    fault = model.fail("GetObject", "flip", key_contains="model.safetensors")
    fetched = fetch_files(S3Source("s3://models/base/v7"), SHA256, cache)
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert fault.seen == 1 and "the content is not right: expected crc32" in caplog.text


def test_bytes_that_stay_damaged_never_reach_the_content_store(model: S3Server, cache: ResultCache):
    model.fail("GetObject", "flip", times=None)
    with pytest.raises(StoreError, match=r"config.json of s3://models/base/v7.*expected crc32 .*, found .*damaged"):
        fetch_files(S3Source("s3://models/base/v7"), ["config.json"], cache)
    assert not list((cache.folder / "files").glob("[!.]*/*"))


# A HEAD has no body that could be cut short.
FAULTS = [
    (operation, kind)
    for operation in ("ListObjectsV2", "HeadObject", "GetObject")
    for kind in ("reset", "truncate", "429", "500", "503")
    if (operation, kind) != ("HeadObject", "truncate")
]


@pytest.mark.parametrize(("operation", "kind"), FAULTS)
def test_faults_that_pass_are_overcome(
    model: S3Server, cache: ResultCache, pauses: list[float], operation: str, kind: str
):
    if kind.isdigit():
        model.fail(operation, "status", times=2, status=int(kind))
    else:
        model.fail(operation, kind, times=2)
    fetched = fetch_files(S3Source("s3://models/base/v7"), SHA256, cache)
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert fetched["config.json"].path.read_bytes() == CONFIG


def test_a_server_that_stays_broken_is_given_up_with_uri_and_attempts(
    model: S3Server, cache: ResultCache, pauses: list[float]
):
    source = S3Source("s3://models/base/v7")
    fault = model.fail("GetObject", "status", times=None, status=503)
    with pytest.raises(
        TransientStoreError, match=r"downloading s3://models/base/v7/config.json failed 5 times.*SlowDown"
    ):
        fetch_files(source, ["config.json"], cache)
    assert fault.seen == 5 and sum(pauses) < 60


def test_credentials_that_expired_are_not_tried_again(model: S3Server, cache: ResultCache, pauses: list[float]):
    source = S3Source("s3://models/base/v7")
    source.list_files()
    model.expire_credentials()
    with pytest.raises(StoreError, match="have expired") as caught:
        fetch_files(source, ["config.json"], cache)
    assert not isinstance(caught.value, TransientStoreError) and not pauses
    assert model.secret_access_key not in str(caught.value)


def test_an_object_that_is_deleted_after_it_was_listed_is_named(s3_client: Any, model: S3Server, cache: ResultCache):
    source = S3Source("s3://models/base/v7")
    source.list_files()
    s3_client.delete_object(Bucket="models", Key="base/v7/config.json")
    with pytest.raises(NotFoundError, match=r"s3://models/base/v7/config.json: there is no such"):
        fetch_files(source, ["config.json"], cache)


@pytest.mark.parametrize("seen_before", [False, True])
def test_an_object_that_is_replaced_after_it_was_listed_is_an_error(
    s3_client: Any, model: S3Server, cache: ResultCache, seen_before: bool
):
    source = S3Source("s3://models/base/v7")
    source.list_files()
    if seen_before:
        source.describe("config.json")
    s3_client.put_object(Bucket="models", Key="base/v7/config.json", Body=CONFIG.replace(b"llama", b"mamba"))
    with pytest.raises(
        StoreError, match=r"s3://models/base/v7/config.json: the object was replaced since it was listed"
    ):
        fetch_files(source, ["config.json"], cache)


def test_an_interrupted_download_goes_on_where_it_was(model: S3Server, cache: ResultCache, pauses: list[float]):
    source = S3Source("s3://models/base/v7")
    model.fail("GetObject", "truncate")
    broken = model.fail("GetObject", "reset", times=None)
    with pytest.raises(TransientStoreError):
        fetch_files(source, ["model.safetensors"], cache)
    (part,) = (cache.folder / "files").glob(".partial-*/part")
    came = part.stat().st_size
    assert came == len(WEIGHTS) // 2 and part.read_bytes() == WEIGHTS[:came]
    broken.times = 0
    seen: list[int] = []
    fetched = fetch_files(source, ["model.safetensors"], cache, report=lambda done, total: seen.append(done))
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert seen[1] == came and seen[-1] == len(WEIGHTS)


def test_whoever_pays_says_so_with_every_request(model: S3Server, cache: ResultCache):
    fetch_files(S3Source("s3://models/base/v7", S3Access(requester_pays=True)), SHA256, cache)
    assert {request.headers.get("x-amz-request-payer") for request in model.requests} == {"requester"}


def test_ranges_are_read_without_the_rest(model: S3Server, tmp_path: Path):
    source = S3Source("s3://models/base/v7")
    assert source.read_range("model.safetensors", 1000, 5) == WEIGHTS[1000:1005]
    assert source.read_range("config.json", len(CONFIG) - 2, 100) == CONFIG[-2:]
    with pytest.raises(NotFoundError, match=r"there is no file 'nothing'; files: config.json, model.safetensors"):
        source.read_range("nothing", 0, 1)
