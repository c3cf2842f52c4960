"""What a place must be able to do to be read from: a folder of files that does not change under its URI.

A source stands for one resolved thing: a commit of a Hub repository, a prefix on S3 as it was listed, a folder. Paths
inside it are relative, with `/`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.errors import NotFoundError
from tasks.records import FileDigest

_NAMED = 20  # Files in a message.

Report = Callable[[int], None]
"""Told how many bytes have come since the last time."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its place describes it, before a byte of it was read."""

    size: int
    """Bytes."""
    identity: str
    """What the place knows this content by: `sha256:...`, `git:<blob sha1>`, `etag:...`. Equal for equal content in
    one repository or bucket; a file with another identity is another file. Empty for files of this machine, which are
    read where they lie."""
    sha256: str | None = None
    """64 hex digits where the place says so itself (LFS files, S3 objects with such a checksum, releases)."""
    checksum: str = ""
    """A weaker proof of the whole content, for files without sha256: `git:<blob sha1>`, `sha1:<hex>`,
    `crc32:<hex>`.
    Empty where there is none."""

    @property
    def digest(self) -> FileDigest | None:
        """The content, where it is known without reading it."""
        return FileDigest(self.sha256, self.size) if self.sha256 else None


class Source(Protocol):
    """A place that is read from. Every method may raise StoreError; faults that may pass are tried again inside."""

    @property
    def uri(self) -> str:
        """What this is in full: `file:///...`, `s3://bucket/prefix`, `hub://org/name@<commit>`."""
        ...

    @property
    def revision(self) -> str:
        """The commit or version it was resolved to; empty where the place has none (S3, folders)."""
        ...

    def list_files(self) -> Mapping[str, RemoteFile]:
        """Every file by its path, sorted; asked of the place once, then remembered."""
        ...

    def describe(self, path: str) -> RemoteFile:
        """One file with everything that the place can say about it; may cost a request, once.

        Raises:
            NotFoundError: there is no such file.
        """
        ...

    def find_copy(self, path: str) -> Path | None:
        """A copy that others already brought to this machine, not proven (the user's Hugging Face cache, say)."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of a file; fewer only at its end.

        Raises:
            NotFoundError: the file is gone.
            StoreError: the place cannot read ranges.
        """
        ...

    def download(self, path: str, folder: Path, report: Report) -> Path:
        """Bring one file whole into `folder`, going on where an earlier attempt in the same folder was broken off.

        The size is right, the content is not proven: the caller does that.

        Args:
            path: The file inside the source.
            folder: Of this file alone; what an earlier attempt left in it is used.
            report: Told of progress.

        Returns:
            Where in `folder` the file is now.

        Raises:
            NotFoundError: the file is gone.
            TransientStoreError: the network failed, after all attempts; what has come stays for the next time.
        """
        ...


def find_file(files: Mapping[str, RemoteFile], path: str, uri: str) -> RemoteFile:
    """The file at `path` of a list.

    Raises:
        NotFoundError: there is none; the message says what there is.
    """
    if path in files:
        return files[path]
    known = ", ".join(list(files)[:_NAMED]) + (f" and {len(files) - _NAMED} more" if len(files) > _NAMED else "")
    raise NotFoundError(f"{uri}: there is no file {path!r}; files: {known or 'none'}")
