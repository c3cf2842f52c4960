import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from tasks.errors import CheckpointError
from tasks.merge.ranges import OrderedHash, open_descriptor, preallocate, read_range, write_range


def test_a_range_is_read_and_written_where_it_stands(tmp_path: Path):
    file = tmp_path / "x"
    preallocate(file, 10)
    with open_descriptor(file, os.O_RDWR) as descriptor:
        write_range(descriptor, 3, memoryview(b"abc"))
        buffer = bytearray(4)
        read_range(descriptor, 2, memoryview(buffer), file)
    assert bytes(buffer) == b"\0abc"
    assert file.stat().st_size == 10
    assert not file.stat().st_mode & 0o111


def test_a_file_that_ends_too_early_is_named(tmp_path: Path):
    file = tmp_path / "x"
    file.write_bytes(b"12345")
    with (
        open_descriptor(file, os.O_RDONLY) as descriptor,
        pytest.raises(CheckpointError, match="x: it ends at byte 5, expected 2 more"),
    ):
        read_range(descriptor, 1, memoryview(bytearray(6)), file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "preadv", fail)
    with (
        open_descriptor(tmp_path / "x", os.O_RDONLY) as descriptor,
        pytest.raises(CheckpointError, match=r"x: it cannot be read at byte 1: .*Input/output error"),
    ):
        read_range(descriptor, 1, memoryview(bytearray(6)), tmp_path / "x")


def test_a_file_system_that_cannot_reserve_space_gets_a_file_of_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    preallocate(tmp_path / "x", 1000)
    assert (tmp_path / "x").stat().st_size == 1000


def test_a_full_disk_is_told_while_space_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="no space"):
        preallocate(tmp_path / "x", 1000)


def test_ranges_written_in_any_order_are_hashed_in_order(tmp_path: Path):
    content = os.urandom(3_000_000)
    file = tmp_path / "x"
    file.write_bytes(content)
    ordered = OrderedHash(file)
    assert ordered.add(2_000_000, 3_000_000) == 0
    assert ordered.add(500, 2_000_000) == 0
    assert ordered.digest().size == 0
    assert ordered.add(0, 500) == 3_000_000
    # The reference: hashlib over the whole content.
    assert ordered.digest().sha256 == hashlib.sha256(content).hexdigest()
    assert ordered.digest().size == 3_000_000


def test_ranges_told_by_several_threads_are_hashed_once_each(tmp_path: Path):
    content = os.urandom(400_000)
    file = tmp_path / "x"
    file.write_bytes(content)
    ordered = OrderedHash(file)
    parts = [(start, start + 1000) for start in range(0, len(content), 1000)]
    threads = [threading.Thread(target=lambda i=i: [ordered.add(*part) for part in parts[i::4]]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ordered.digest().sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("can_be_mapped", [True, False])
@pytest.mark.parametrize(
    "ends", [[10_000_001], [4096, 5000, 8_500_000, 10_000_001], [3, 4_194_304, 4_194_305, 10_000_001]]
)
def test_files_of_several_windows_are_hashed_whether_or_not_they_can_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_be_mapped: bool, ends: list[int]
):
    content = os.urandom(10_000_001)
    file = tmp_path / "x"
    file.write_bytes(content)
    if not can_be_mapped:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENODEV, "No such device")

        monkeypatch.setattr("tasks.merge.ranges.mmap.mmap", refuse)
    ordered = OrderedHash(file)
    for start, end in zip([0, *ends], ends, strict=False):
        assert ordered.add(start, end) == end
    assert ordered.digest().sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_became_shorter_before_it_was_hashed_is_named(tmp_path: Path):
    file = tmp_path / "x"
    file.write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"x: it ends before byte 200; it was changed while it was written"):
        OrderedHash(file).add(0, 200)
