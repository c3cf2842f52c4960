from pathlib import Path

import pytest

from tasks.records import FileDigest
from tasks.sources.proofs import prove_content
from tasks.sources.source import RemoteFile

# Of the five letters "hello", by sha256sum, `git hash-object`, sha1sum and `crc32`.
SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
GIT = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
SHA1 = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
CRC32 = "3610a686"


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello"
    path.write_bytes(b"hello")
    return path


@pytest.mark.parametrize("checksum", ["", f"git:{GIT}", f"sha1:{SHA1}", f"crc32:{CRC32}"])
def test_right_content_is_proven_by_every_kind_of_checksum(hello: Path, checksum: str):
    remote = RemoteFile(5, "etag:1", SHA256, checksum)
    assert prove_content(hello, remote, FileDigest(SHA256, 5)) == (FileDigest(SHA256, 5), None)


@pytest.mark.parametrize(("kind", "right"), [("git", GIT), ("sha1", SHA1), ("crc32", CRC32)])
def test_a_wrong_checksum_is_said_with_both(hello: Path, kind: str, right: str):
    wrong = "0" * len(right)
    _, difference = prove_content(hello, RemoteFile(5, "etag:1", None, f"{kind}:{wrong}"), None)
    assert difference == f"expected {kind} {wrong}, found {right} (5 bytes)"


def test_size_and_sha256_are_compared_with_the_place_and_the_plan(hello: Path):
    assert prove_content(hello, RemoteFile(6, "etag:1"), None)[1] == "expected 6 bytes, found 5"
    wrong = "0" * 64
    expected = f"expected sha256 {wrong} (5 bytes), found {SHA256} (5 bytes)"
    assert prove_content(hello, RemoteFile(5, "etag:1", wrong), None)[1] == expected
    assert prove_content(hello, RemoteFile(5, "etag:1", SHA256), FileDigest(wrong, 5))[1] == expected


def test_a_kind_of_checksum_that_nobody_can_compute_is_a_mistake(hello: Path):
    with pytest.raises(ValueError, match="expected a checksum of kind git, sha1 or crc32, found 'md4'"):
        prove_content(hello, RemoteFile(5, "etag:1", None, "md4:0"), None)
