"""Bring the bytes of one remote file here, going on where the connection broke off."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tasks.errors import StoreError, TransientStoreError
from tasks.remote.retries import with_retries
from tasks.sources.source import Report

CHUNK_BYTES = 2**20
# A connection that brought this much before it broke is no failed attempt: a file of many gigabytes may break often.
_PROGRESS_BYTES = 8 * 2**20

OpenStream = Callable[[int, int], AbstractContextManager[tuple[int, Iterator[bytes]]]]
"""Opens bytes `start` to `stop`; gives where the bytes really begin (0 where ranges are not honoured), and the bytes.

May raise NotFoundError, StoreError, TransientStoreError, when it is opened and while it is read."""


def append_download(part: Path, size: int, open_stream: OpenStream, where: str, report: Report) -> Path:
    """Fill `part` up to `size` bytes from wherever it ends.

    Args:
        part: What has come so far; need not exist. Made with its folder.
        size: Bytes of the whole file.
        open_stream: Reads the file.
        where: The file, for messages.
        report: Told of bytes that are here already, then of those that come; negative where some were thrown away.

    Returns:
        `part`, now whole.

    Raises:
        TransientStoreError: after all attempts; what has come stays.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    if part.stat().st_size > size:
        part.write_bytes(b"")  # Of something else.
    report(part.stat().st_size)

    def attempt() -> None:
        while (start := part.stat().st_size) < size:
            try:
                _append(part, start, size, open_stream, report)
                if part.stat().st_size <= start:
                    raise TransientStoreError(f"{where}: the answer ended at byte {start:,} of {size:,}")
            except TransientStoreError:
                if part.stat().st_size - start < _PROGRESS_BYTES:
                    raise

    with_retries(attempt, f"downloading {where}")
    return part


def read_bytes(start: int, stop: int, open_stream: OpenStream, where: str) -> bytes:
    """Bytes `start` to `stop`, all of them.

    Raises:
        StoreError: the place answers with other bytes than were asked for.
        TransientStoreError: after all attempts.
    """
    if stop <= start:
        return b""

    def attempt() -> bytes:
        with open_stream(start, stop) as (begins, chunks):
            if begins != start:
                raise StoreError(f"{where}: the server sends whole files only; expected bytes {start:,} to {stop:,}")
            data = b"".join(chunks)
        if len(data) != stop - start:
            raise TransientStoreError(f"{where}: expected {stop - start:,} bytes from {start:,}, found {len(data):,}")
        return data

    return with_retries(attempt, f"reading {where}")


def _append(part: Path, start: int, size: int, open_stream: OpenStream, report: Report) -> None:
    with open_stream(start, size) as (begins, chunks), part.open("r+b") as file:
        if begins != start:
            report(begins - start)
            file.truncate(begins)
        file.seek(begins)
        for chunk in chunks:
            file.write(chunk)
            report(len(chunk))
