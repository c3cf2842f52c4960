"""Compare a file that came with everything its place says about its content."""

import hashlib
import zlib
from pathlib import Path
from typing import Protocol

from tasks.records import FileDigest
from tasks.sources.source import RemoteFile

_CHUNK_BYTES = 2**20


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    """CRC-32 (zlib's) with the face of hashlib."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def prove_content(path: Path, remote: RemoteFile, expected: FileDigest | None) -> tuple[FileDigest, str | None]:
    """Hash a file once and compare it with all that is known.

    Args:
        path: The file on this machine.
        remote: What its place says.
        expected: What the caller knows; None: nothing more.

    Returns:
        What the content is, and how it differs from what it must be: None if it does not.
    """
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    name, _, checksum = remote.checksum.partition(":")
    other = _hasher(name, size)
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            sha256.update(data)
            if other is not None:
                other.update(data)
    digest = FileDigest(sha256.hexdigest(), size)
    if remote.size != size:
        return digest, f"expected {remote.size:,} bytes, found {size:,}"
    for known in (remote.digest, expected):
        if known is not None and known != digest:
            wanted = f"sha256 {known.sha256} ({known.size:,} bytes)"
            return digest, f"expected {wanted}, found {digest.sha256} ({size:,} bytes)"
    if other is not None and other.hexdigest() != checksum:
        return digest, f"expected {name} {checksum}, found {other.hexdigest()} ({size:,} bytes)"
    return digest, None


def _hasher(name: str, size: int) -> _Hasher | None:
    """For a checksum by its name in `RemoteFile.checksum`; None for an empty name."""
    if name == "git":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if name == "sha1":
        return hashlib.sha1(usedforsecurity=False)
    if name == "crc32":
        return _Crc32()
    if name:
        raise ValueError(f"expected a checksum of kind git, sha1 or crc32, found {name!r}")
    return None
