"""Releases in a bucket of S3, or of a service that speaks it and honours conditional writes.

An object is there whole or not at all, so small files need no drafts. Folders are only what keys have in common: one
is complete when the file that is stored last stands in it, and is taken down by removing that file first.
"""

import random
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from botocore.exceptions import ClientError

from tasks.digests import hash_bytes
from tasks.errors import AliasConflictError, NotFoundError, StoreError, TransientStoreError
from tasks.records import FileDigest
from tasks.remote.s3 import parse_s3
from tasks.stores.s3.objects import S3Objects
from tasks.stores.s3.upload import PART_BYTES, upload_folder
from tasks.stores.store import Content

# Files that say of their folder that it is whole.
_COMPLETE = frozenset({"manifest.json"})
_SWAP_ATTEMPTS = 5
_NO_ETAG = f'"{"0" * 32}"'
_PAGE_SIZE = 1000


class S3Store:
    """A store under a prefix of a bucket. Who we are is read from the run or the environment once, here."""

    def __init__(self, destination: str, part_size: int = PART_BYTES, page_size: int = _PAGE_SIZE):
        """Nothing is asked of S3 yet.

        Args:
            destination: `s3://bucket/prefix`.
            part_size: Bytes from which a file is sent in parts, and of each part; S3 takes none below 5 MiB.
            page_size: Keys per answer of a listing, and per request that deletes; at most 1000.
        """
        self._objects = S3Objects(parse_s3(destination), page_size)
        self._part_size = part_size

    @property
    def destination(self) -> str:
        """`s3://bucket/prefix`."""
        return self._objects.uri("")

    def uri(self, path: str) -> str:
        """`s3://bucket/prefix/path`."""
        return self._objects.uri(self._inside(path))

    def exists(self, path: str) -> bool:
        """Whether there is an object, or any below it."""
        path = self._inside(path)
        return self._objects.is_folder(path) or self._objects.find(path) is not None

    def list_names(self, path: str) -> list[str]:
        """Names directly under a folder, without dotted ones, sorted; empty if there is no such folder."""
        return [name for name in self._objects.list_names(self._inside(path)) if not name.startswith(".")]

    def list_files(self, path: str) -> dict[str, int]:
        """Every object under a folder to its size in bytes; dotted ones too, since they do not belong there."""
        found = self._objects.list_files(self._inside(path))
        return {name: found[name] for name in sorted(found) if name and not name.endswith("/")}

    def read_bytes(self, path: str) -> bytes:
        """A small object; NotFoundError if there is none."""
        if (found := self._objects.read(self._inside(path))) is None:
            raise NotFoundError(f"{self.uri(path)}: there is no such object")
        return found.data

    def pointer_problems(self, path: str, points_at: str) -> list[str]:
        """None: readers find the files of `points_at` themselves."""
        return []

    def compute_digest(self, path: str) -> FileDigest:
        """Read the object that is stored now and hash it; NotFoundError if there is none."""
        return self._objects.hash(self._inside(path))

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether an object of this content stands there, by the digest that S3 proved when it was stored."""
        return self._objects.find(self._inside(path)) == digest

    def write_bytes(self, path: str, data: bytes) -> None:
        """Store a small object, in place of the one that stands there."""
        self._objects.put(self._inside(path), data, hash_bytes(data))

    def compare_and_swap(self, path: str, expected: bytes | None, new: bytes, points_at: str) -> None:
        """Replace `expected` by `new` with a conditional write: S3 refuses it if the object changed since it was read.

        Readers find the folder behind `points_at` themselves, so nothing is done with it.

        Raises:
            AliasConflictError: the object holds something else.
        """
        path = self._inside(path)
        for attempt in range(_SWAP_ATTEMPTS):
            found = self._objects.read(path)
            data = found.data if found else None
            if data == new and (attempt or new != expected):
                return  # Our own: it was done, and the answer was lost. Its repetition was refused as a conflict.
            if data != expected:
                break
            condition = {"IfMatch": found.etag} if found else {"IfNoneMatch": "*"}
            if self._swap(path, new, condition):
                return
            # S3 refuses both of two writes that meet, so what was expected may still stand.
            time.sleep(random.uniform(0, 0.1))
        raise AliasConflictError(
            f"{self._objects.uri(path)}: another run changed it after this one had read it, and that run stands; look "
            "at what is live now, then run this one again"
        )

    def upload(self, path: str, contents: Mapping[str, Content], last: str) -> None:
        """Store a folder; see `Store.upload`. Until `last` stands there, it is not complete."""
        for name in contents:
            self._inside(name)
        upload_folder(self._objects, self._inside(path), contents, last, self._part_size)

    def delete_tree(self, path: str) -> None:
        """Remove what makes the folder complete, then the rest of it and of uploads into it that were not completed."""
        path = self._inside(path)
        found = [f"{path}/{name}" if path else name for name in self._objects.list_files(path)]
        self._objects.delete_all([name for name in found if PurePosixPath(name).name in _COMPLETE])
        self._objects.delete_all([name for name in found if PurePosixPath(name).name not in _COMPLETE])
        for upload in self._objects.list_uploads(path):
            self._objects.abort(upload.path, upload.upload_id)

    def delete_file(self, path: str) -> None:
        """Remove a small object."""
        self._objects.delete(self._inside(path))

    def check_writable(self, path: str = "") -> None:
        """Write an object where the folder is or will be and try what must be refused; leaves nothing behind.

        Raises:
            StoreError: no bucket, no right to write, or conditional writes are not honoured.
        """
        probe = "/".join(part for part in (self._inside(path), f".probe-{secrets.token_hex(8)}") if part)
        try:
            ignored = self._find_ignored_conditions(probe)
        except BaseException:
            with suppress(StoreError):  # What went wrong first is what the user must know.
                self._objects.delete(probe)
            raise
        self._objects.delete(probe)
        if ignored:
            raise StoreError(
                f"{self.destination}: this store ignores {' and '.join(ignored)}, so two runs could both move an "
                "alias; use one that honours conditional writes, such as S3 itself, or a folder"
            )

    def free_bytes(self) -> int | None:
        """None: a bucket has no limit."""
        return None

    def _swap(self, path: str, new: bytes, condition: Mapping[str, str]) -> bool:
        """Whether the write was done; False if it is to be looked at what stands there now.

        Raises:
            TransientStoreError: nobody can say, and what stands there is not ours.
        """
        try:
            self._objects.put(path, new, hash_bytes(new), **condition)
        except (ClientError, NotFoundError):
            return False
        except TransientStoreError:
            found = self._objects.read(path)
            if found is None or found.data != new:
                raise
        return True

    def _find_ignored_conditions(self, probe: str) -> list[str]:
        """Headers of conditions that do not hold and under which an object was written all the same."""
        # A conflict of the first write can only be with ourselves: it was done, and its answer was lost.
        if not self._put_if(probe, {"IfNoneMatch": "*"}) and self._objects.find(probe) is None:
            raise StoreError(
                f"{self._objects.uri(probe)}: this store refuses If-None-Match though nothing stands there, so no "
                "alias could ever be made; use one that honours conditional writes, such as S3 itself, or a folder"
            )
        refusable = {"If-None-Match": {"IfNoneMatch": "*"}, "If-Match": {"IfMatch": _NO_ETAG}}
        return [header for header, condition in refusable.items() if self._put_if(probe, condition)]

    def _put_if(self, path: str, condition: Mapping[str, str]) -> bool:
        """Whether a write under a condition was accepted."""
        data = secrets.token_bytes(8)
        try:
            self._objects.put(path, data, hash_bytes(data), **condition)
        except ClientError:
            return False
        return True

    def _inside(self, path: str) -> str:
        """A path, as keys hold it. Paths come from recipes, manifests and the command line; none may lead out."""
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise StoreError(
                f"{path!r} leads out of {self.destination}; a path inside a store is relative, without '..'"
            )
        inside = PurePosixPath(path).as_posix()
        return "" if inside == "." else inside
