"""Machines that share results on S3: what one computed the others find, and no fault of S3 is a fault of theirs."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import S3Server

import tasks.caching.shared
from tasks.cache import ResultCache
from tasks.caching.entries import encode_entry, entry_name
from tasks.caching.shared import SharedCache
from tasks.digests import hash_bytes
from tasks.remote.access import S3Access, use_access

KEY = {"model": "abc", "settings": {"max_length": 8}}
VALUE = {"losses": [0.1, 2.5e-300], "n": 3}
OBJECT = f"cache/results/{entry_name('score', KEY)}.json"
DAY = 24 * 3600.0

Machine = Callable[..., ResultCache]


def operations(s3: S3Server) -> list[str]:
    return [request.operation for request in s3.requests]


def keys(s3: S3Server, folder: str = "") -> list[str]:
    found = s3.client().list_objects_v2(Bucket="team", Prefix=f"cache/{folder}")
    return [entry["Key"] for entry in found.get("Contents", [])]


def store(s3: S3Server, content: bytes) -> None:
    s3.client().put_object(Bucket="team", Key=OBJECT, Body=content)


def stored(s3: S3Server) -> bytes:
    return s3.client().get_object(Bucket="team", Key=OBJECT)["Body"].read()


def test_what_one_machine_computed_another_finds_and_then_has_itself(s3: S3Server, machine: Machine):
    machine("a").put("score", KEY, VALUE)
    assert machine("b").get("score", KEY) == VALUE
    s3.requests.clear()
    assert machine("b").get("score", KEY) == VALUE
    assert not s3.requests


def test_another_key_is_a_miss(machine: Machine):
    machine("a").put("score", KEY, VALUE)
    assert machine("b").get("score", KEY | {"model": "abd"}) is None
    assert machine("b").get("evaluation", KEY) is None


def test_where_files_lie_on_one_machine_is_not_shared(s3: S3Server, machine: Machine, tmp_path: Path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    os.utime(model, (1, 1))
    machine("a").digest_file(model)
    machine("a").put("file-digest", {"path": str(model)}, {"sha256": "0"})
    assert machine("b").get("file-digest", {"path": str(model)}) is None
    assert not s3.requests


@pytest.mark.parametrize("damage", ["half", "empty", "other value", "of another key"])
def test_a_damaged_entry_is_a_miss_and_the_next_result_takes_its_place(
    s3: S3Server, machine: Machine, caplog: pytest.LogCaptureFixture, damage: str
):
    whole = encode_entry("score", KEY, VALUE)
    content = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "other value": whole.replace(b"0.1", b"0.2"),
        "of another key": encode_entry("score", {"model": "abd"}, VALUE),
    }[damage]
    store(s3, content)
    cache = machine("a")
    assert cache.get("score", KEY) is None
    assert f"s3://team/{OBJECT} does not agree with its digest" in caplog.text
    cache.put("score", KEY, VALUE)
    assert stored(s3) == whole
    assert machine("b").get("score", KEY) == VALUE


def test_of_two_that_compute_the_same_the_first_stays(s3: S3Server, machine: Machine):
    machine("a").put("score", KEY, {"seconds": 1.0})
    machine("b").put("score", KEY, {"seconds": 2.0})
    assert machine("c").get("score", KEY) == {"seconds": 1.0}
    # The second saw the condition fail, looked, and was content.
    assert [request.status for request in s3.requests if request.path.endswith(OBJECT)].count(412) == 1


def test_many_writers_of_one_entry_leave_one_whole_entry(s3: S3Server, machine: Machine):
    store(s3, b"damaged")
    values = [{"seconds": float(number)} for number in range(8)]
    threads = [
        threading.Thread(target=machine(f"m{number}").put, args=("score", KEY, value))
        for number, value in enumerate(values)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = machine("reader").get("score", KEY)
    assert found in values
    assert stored(s3) == encode_entry("score", KEY, found)


def test_a_writer_that_meets_others_each_time_leaves_it_to_them(s3: S3Server, machine: Machine):
    fault = s3.fail("PutObject", "status", times=3, key_contains=OBJECT, status=412, code="PreconditionFailed")
    machine("a").put("score", KEY, VALUE)
    assert fault.seen == 3
    assert machine("b").get("score", KEY) is None


# Ends by SIGKILL while S3 has not answered the write of a result.
_KILLED = """
import sys
from pathlib import Path
from tasks.cache import ResultCache
from tasks.caching.shared import SharedCache
print("writing", flush=True)
ResultCache(Path(sys.argv[1]), shared=SharedCache("s3://team/cache", 10**9)).put("score", {"model": "big"}, {"n": 1})
"""


def test_a_writer_killed_in_the_middle_leaves_a_whole_entry_or_none(s3: S3Server, machine: Machine, tmp_path: Path):
    fault = s3.fail("PutObject", "delay", seconds=1.0)
    writer = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path / "a")], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not fault.seen and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=120)
    assert fault.seen
    # S3 had all of it, and may still store it.
    assert machine("b").get("score", {"model": "big"}) in (None, {"n": 1})
    machine("b").put("score", {"model": "big"}, {"n": 2})
    assert machine("c").get("score", {"model": "big"}) in ({"n": 1}, {"n": 2})


@pytest.mark.parametrize("kind", ["reset", "status"])
def test_s3_that_goes_down_is_said_once_and_the_run_goes_on(
    s3: S3Server, machine: Machine, caplog: pytest.LogCaptureFixture, kind: str
):
    caplog.set_level(logging.INFO)
    machine("a").put("score", KEY, VALUE)
    s3.requests.clear()
    for operation in ("GetObject", "PutObject"):
        s3.fail(operation, kind, times=None)
    for number in range(3):
        cache = machine("b")  # As tasks do, each anew.
        assert cache.get("score", {"number": number}) is None
        cache.put("score", {"number": number}, VALUE)
        assert cache.get("score", {"number": number}) == VALUE
    said = [record.getMessage() for record in caplog.records if record.name == "tasks.caching.shared"]
    assert len(said) == 2
    assert (
        "shared cache s3://team/cache cannot be read; the run goes on without it, and tries it again in 10" in said[0]
    )
    assert "cannot be written" in said[1]
    # Each five times, then no more.
    assert operations(s3).count("GetObject") == operations(s3).count("PutObject") == 5


def test_s3_is_tried_again_after_the_pause_and_said_more_quietly(
    s3: S3Server, machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO)
    machine("a").put("score", KEY, VALUE)
    fault = s3.fail("GetObject", "reset", times=None)
    monkeypatch.setattr(tasks.caching.shared, "_PAUSE_SECONDS", 0.0)
    assert machine("b").get("score", KEY) is None
    assert machine("b").get("score", KEY) is None
    levels = [record.levelno for record in caplog.records if record.name == "tasks.caching.shared"]
    assert levels == [logging.WARNING, logging.INFO]
    fault.times = 0
    assert machine("b").get("score", KEY) == VALUE


def test_who_may_only_read_shares_what_others_write(s3: S3Server, machine: Machine, caplog: pytest.LogCaptureFixture):
    machine("a").put("score", KEY, VALUE)
    s3.fail("PutObject", "status", times=None, status=403)
    reader = machine("reader")
    reader.put("score", {"number": 1}, VALUE)
    assert reader.get("score", KEY) == VALUE
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "tasks.caching.shared"]
    assert "cannot be written" in warning and "S3 refused access" in warning


def test_an_entry_that_is_read_after_a_day_counts_as_used(s3: S3Server, machine: Machine):
    machine("a").put("score", KEY, VALUE)
    s3.requests.clear()
    assert machine("b").get("score", KEY) == VALUE
    assert operations(s3) == ["GetObject"]
    s3.set_age("team", OBJECT, 2 * DAY)
    assert machine("c").get("score", KEY) == VALUE
    assert operations(s3) == ["GetObject", "GetObject", "PutObject"]
    age = time.time() - s3.client().head_object(Bucket="team", Key=OBJECT)["LastModified"].timestamp()
    assert age < DAY
    assert stored(s3) == encode_entry("score", KEY, VALUE)


def test_the_first_on_a_prefix_shows_that_it_can_be_written_and_the_next_only_reads(s3: S3Server, shared: SharedCache):
    assert shared.problem() is None
    assert operations(s3) == ["GetObject", "PutObject"]
    assert s3.requests[1].headers == {"If-None-Match": "*"}
    assert SharedCache(shared.uri, 10**9).problem() is None
    assert operations(s3)[2:] == ["GetObject"]


def test_two_that_are_first_at_once_are_both_content(s3: S3Server, shared: SharedCache):
    s3.fail("PutObject", "status", status=412, code="PreconditionFailed")
    assert shared.problem() is None


def test_a_bucket_that_is_not_there_is_told_early(s3: S3Server, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    shared = SharedCache("s3://elsewhere/cache", 10**9)
    problem = shared.problem()
    assert problem is not None
    assert problem.startswith(
        "shared cache s3://elsewhere/cache/cache.json: there is no such thing on S3 (NoSuchBucket)"
    )
    assert "run without it (cache.shared, --cache s3://...)" in problem
    # The run ends with that, and nobody says it again.
    assert ResultCache(tmp_path, shared=shared).get("score", KEY) is None
    assert not caplog.records


@pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
def test_rights_that_are_missing_are_told_early(s3: S3Server, shared: SharedCache, operation: str):
    s3.fail(operation, "status", times=None, status=403)
    assert "S3 refused access" in str(shared.problem())


def test_credentials_that_cannot_be_used_are_told_early(s3: S3Server, shared: SharedCache):
    with use_access(S3Access(access_key_id="AKIA")):
        assert "only one is given" in str(shared.problem())


def test_s3_that_is_down_at_the_start_is_no_problem_of_the_run(
    s3: S3Server, shared: SharedCache, caplog: pytest.LogCaptureFixture
):
    s3.fail("GetObject", "status", times=None, status=503)
    assert shared.problem() is None
    assert "cannot be read; the run goes on without it" in caplog.text


def test_the_run_says_who_it_is_on_s3_after_the_cache_was_opened(
    s3: S3Server, shared: SharedCache, monkeypatch: pytest.MonkeyPatch
):
    for name in s3.environment():
        monkeypatch.delenv(name)
    access = S3Access(s3.endpoint, s3.region, s3.access_key_id, s3.secret_access_key)
    with use_access(access):
        assert shared.problem() is None
    assert keys(s3) == ["cache/cache.json"]


def test_nothing_secret_is_in_what_is_shared(s3: S3Server, machine: Machine, tmp_path: Path):
    cache = machine("a", has_downloads=True)
    assert cache.shared is not None and cache.shared.problem() is None
    cache.put("score", KEY, VALUE)
    everything = "".join(
        key + s3.client().get_object(Bucket="team", Key=key)["Body"].read().decode() for key in keys(s3)
    )
    for secret in (s3.access_key_id, s3.secret_access_key, str(tmp_path)):
        assert secret not in everything


@pytest.mark.parametrize("size", [1000, 6000])
def test_a_file_is_shared_by_its_content_once(
    s3: S3Server, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    # Parts of 5000 bytes, which S3 itself would not take.
    monkeypatch.setattr(tasks.stores.s3.upload, "PART_BYTES", 5000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    data = random.Random(0).randbytes(size)
    (tmp_path / "weights").write_bytes(data)
    digest = hash_bytes(data)
    first, second = machine("a", has_downloads=True).shared, machine("b", has_downloads=True).shared
    assert first is not None and second is not None
    assert second.find_file(digest) is None
    first.add_file(tmp_path / "weights", digest)
    assert second.find_file(digest) == f"s3://team/cache/files/{digest.sha256}"
    assert s3.client().get_object(Bucket="team", Key=f"cache/files/{digest.sha256}")["Body"].read() == data
    assert keys(s3, "used") == [f"cache/used/{digest.sha256}"]
    s3.requests.clear()
    second.add_file(tmp_path / "gone", digest)
    assert not [request for request in s3.requests if "/files/" in request.path and request.method != "HEAD"]


def test_files_are_not_shared_unless_asked_for(s3: S3Server, machine: Machine, tmp_path: Path):
    (tmp_path / "weights").write_bytes(b"weights")
    shared = machine("a").shared
    assert shared is not None
    shared.add_file(tmp_path / "weights", hash_bytes(b"weights"))
    assert shared.find_file(hash_bytes(b"weights")) is None
    assert not s3.requests


def test_a_file_that_is_gone_costs_the_sharing(s3: S3Server, machine: Machine, caplog: pytest.LogCaptureFixture):
    shared = machine("a", has_downloads=True).shared
    assert shared is not None
    shared.add_file(Path("/none/weights"), hash_bytes(b"weights"))
    assert "/none/weights: cannot be read" in caplog.text
