"""Ranges of bytes of files: read whole, written whole, preallocated, hashed in order."""

import errno
import hashlib
import mmap
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import CheckpointError
from tasks.records import FileDigest

# What file systems answer that cannot reserve space ahead.
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
_HASH_WINDOW_BYTES = 1 << 22


@contextmanager
def open_descriptor(path: Path, flags: int) -> Generator[int]:
    """A file descriptor, closed at the end of the block."""
    # Python's default mode would make new files executable.
    descriptor = os.open(path, flags, mode=0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_range(descriptor: int, start: int, buffer: memoryview, file: Path) -> None:
    """Fill `buffer` with the bytes of `file` from `start`.

    Raises:
        CheckpointError: the file ends too early, or cannot be read.
    """
    filled = 0
    while filled < len(buffer):
        try:
            n_bytes = os.preadv(descriptor, [buffer[filled:]], start + filled)
        except OSError as error:
            raise CheckpointError(f"{file}: it cannot be read at byte {start + filled}: {error}") from error
        if n_bytes == 0:
            raise CheckpointError(
                f"{file}: it ends at byte {start + filled}, expected {len(buffer) - filled} more; "
                "it was changed while it was read"
            )
        filled += n_bytes


def write_range(descriptor: int, start: int, buffer: memoryview) -> None:
    """Write all of `buffer` at `start`."""
    written = 0
    while written < len(buffer):
        written += os.pwrite(descriptor, buffer[written:], start + written)


def preallocate(path: Path, size: int) -> None:
    """Create a file of `size` bytes, its space reserved where the file system can do that."""
    with open_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
            os.ftruncate(descriptor, size)


class OrderedHash:
    """sha256 of a file whose ranges are written in any order, by any thread.

    A range is hashed as soon as all bytes before it are, mostly still in the page cache, by the thread that
    wrote the missing one. One thread hashes; the others go on writing.
    """

    def __init__(self, path: Path):
        self._path = path
        self._sha256 = hashlib.sha256()
        self._position = 0
        self._waiting: dict[int, int] = {}
        self._lock = threading.Lock()
        self._busy = False

    def add(self, start: int, stop: int) -> int:
        """Tell that the bytes from `start` to `stop` (more than none) have been written.

        Returns:
            Up to where this call has hashed; 0 if another thread does it. No two calls return the same end.
        """
        with self._lock:
            self._waiting[start] = stop
            if self._busy:
                return 0
            self._busy = True
        hashed = 0
        while (end := self._next_end()) is not None:
            self._hash_up_to(end)
            hashed = end
        return hashed

    def digest(self) -> FileDigest:
        """Of the bytes up to the first that is missing."""
        return FileDigest(self._sha256.hexdigest(), self._position)

    def _next_end(self) -> int | None:
        with self._lock:
            end = self._waiting.pop(self._position, None)
            self._busy = end is not None
            return end

    def _hash_up_to(self, end: int) -> None:
        with open_descriptor(self._path, os.O_RDONLY) as descriptor:
            if os.fstat(descriptor).st_size < end:
                raise CheckpointError(f"{self._path}: it ends before byte {end}; it was changed while it was written")
            while self._position < end:
                stop = min(end, self._position - self._position % _HASH_WINDOW_BYTES + _HASH_WINDOW_BYTES)
                self._hash_window(descriptor, stop)
                self._position = stop

    def _hash_window(self, descriptor: int, stop: int) -> None:
        """Straight from the page cache: to copy bytes into a buffer first takes a tenth of what hashing does."""
        offset = self._position - self._position % mmap.ALLOCATIONGRANULARITY
        try:
            window = mmap.mmap(descriptor, stop - offset, access=mmap.ACCESS_READ, offset=offset)
        except OSError:
            # Some network file systems map no files.
            buffer = memoryview(bytearray(stop - self._position))
            read_range(descriptor, self._position, buffer, self._path)
            self._sha256.update(buffer)
            return
        with window:
            self._sha256.update(memoryview(window)[self._position - offset :])
