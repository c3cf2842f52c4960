"""What a place must be able to do to hold releases: folders, S3 and the Hub behind the same few calls.

Paths inside a store are relative, with `/`, and never begin with a dot: dotted names are the store's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.digests import hash_bytes
from tasks.records import FileDigest


@dataclass(frozen=True, slots=True)
class Content:
    """One file to be stored, and what its bytes must hash to once they are there."""

    source: Path | bytes | str
    """A file on this machine; the bytes themselves where they are few; or the object `s3://bucket/key` that holds it,
    which only a store on S3 can take."""
    digest: FileDigest

    @property
    def at_hand(self) -> Path | bytes:
        """The source, on this machine; ValueError for an object on S3, which this store cannot take."""
        if isinstance(self.source, str):
            raise ValueError(f"{self.source} is not on this machine; bring it here before it is stored elsewhere")
        return self.source


def content_of(data: bytes) -> Content:
    """A small file that exists only in memory."""
    return Content(data, hash_bytes(data))


class Store(Protocol):
    """A place where releases live. Every method may raise StoreError; transient faults are TransientStoreError."""

    @property
    def destination(self) -> str:
        """The place as a recipe writes it: an absolute path, `s3://bucket/prefix`, `hub://org`."""
        ...

    def uri(self, path: str) -> str:
        """Where `path` can be read by others, e.g. `file:///releases/demo`."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        ...

    def list_names(self, path: str) -> list[str]:
        """Names directly under a folder, sorted; empty if there is no such folder."""
        ...

    def list_files(self, path: str) -> dict[str, int]:
        """Every file under a folder, at any depth: its path inside the folder to its size in bytes, sorted."""
        ...

    def read_bytes(self, path: str) -> bytes:
        """A small file; NotFoundError if there is none."""
        ...

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a small file whole: a reader sees the old content or the new, nothing between."""
        ...

    def compare_and_swap(self, path: str, expected: bytes | None, new: bytes, points_at: str) -> None:
        """Replace `expected` by `new`; None expects that there is no file.

        A lost answer (the swap was done, but we were not told) is recognised by content and is a success.

        Args:
            path: The file, e.g. of an alias.
            expected: What it must hold now.
            new: What it shall hold.
            points_at: The folder that `new` points at. Where readers follow a branch (the Hub), the files of that
                folder become the branch's files in the same step; elsewhere nothing is done with it.

        Raises:
            AliasConflictError: the file holds something else; of several writers exactly one wins.
        """
        ...

    def pointer_problems(self, path: str, points_at: str) -> list[str]:
        """What readers of a pointer get that is not the folder it points at, in sentences; mostly nothing.

        Only where readers follow a branch (the Hub) can somebody have changed that behind the pointer's back.
        """
        ...

    def compute_digest(self, path: str) -> FileDigest:
        """Read the bytes that are stored now, all of them, and hash them; NotFoundError if there is no such file."""
        ...

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether a file with this content stands there, as cheaply as it can be known for sure.

        A folder hashes the bytes; S3 and the Hub compare with the digest that they were given, and proved, when the
        file was stored.
        """
        ...

    def upload(self, path: str, contents: Mapping[str, Content], last: str) -> None:
        """Store a folder whole, each file verified after it was written.

        Doing it again completes a folder that lacks files or holds damaged ones, and copies nothing else.

        Args:
            path: The folder. On stores that can rename, it appears at once; on others, `last` completes it.
            contents: Path inside the folder to content.
            last: The file whose presence means "complete". It is never replaced.

        Raises:
            StoreError: no space, or `last` stands there with other content.
        """
        ...

    def delete_tree(self, path: str) -> None:
        """Remove a folder; readers see it whole or not at all. Nothing happens if there is none."""
        ...

    def delete_file(self, path: str) -> None:
        """Remove a small file that `write_bytes` wrote; nothing happens if there is none."""
        ...

    def check_writable(self, path: str = "") -> None:
        """Prove before any work that a folder can be written and that swaps are honoured; leaves nothing behind.

        Raises:
            StoreError: it cannot, or the place ignores the condition of a conditional write, so that two runs could
                both believe that they won; the message says which.
        """
        ...

    def free_bytes(self) -> int | None:
        """Space left; None where there is no such limit."""
        ...
