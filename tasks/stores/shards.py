"""Where the files of one merged model gather that several processes write: a folder that all of them see, or S3.

A file appears under its name whole. Nothing here says when all of them are there: who asked for them knows.
"""

import logging
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tasks.digests import hash_bytes, hash_file
from tasks.errors import InputError, StoreError
from tasks.records import FileDigest
from tasks.references import local_path
from tasks.resumable import may_be_mended
from tasks.staging import commit, staged, writing

logger = logging.getLogger(__name__)

_KEPT_SECONDS = 7 * 24 * 3600.0
"""How long files on S3 wait for a run that goes on with them, as drafts in a folder do."""
_USED_SECONDS = 24 * 3600.0
_USERS = ".users"


class ShardPlace(Protocol):
    """A place for the files of one model, by their paths inside it. Every method may raise StoreError."""

    @property
    def uri(self) -> str:
        """Where others read them: `file:///...` or `s3://bucket/prefix`."""
        ...

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether a file with this content stands there."""
        ...

    @contextmanager
    def draft(self, path: str) -> Generator[Path]:
        """A folder of this machine to write the file into, removed at the end with what is still in it."""
        ...

    def put(self, path: str, file: Path, digest: FileDigest) -> None:
        """Store a file from a draft, of this content."""
        ...


class FolderPlace:
    """A folder on storage that every process sees."""

    def __init__(self, folder: Path):
        """Whoever hands out the work has made the folder.

        Raises:
            InputError: it is not there, so this machine does not see what the others do.
        """
        if not folder.is_dir():
            raise InputError(
                f"{folder}: this machine does not see the folder that the merged model is written to; put the cache "
                "(--cache DIR) on storage that all nodes share under the same path, or share it on S3 (--cache s3://...)"
            )
        self._folder = folder

    @property
    def uri(self) -> str:
        """`file:///...`."""
        return self._folder.as_uri()

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether the bytes that stand there hash to this."""
        file = self._folder / path
        return file.is_file() and file.stat().st_size == digest.size and hash_file(file) == digest

    @contextmanager
    def draft(self, path: str) -> Generator[Path]:
        """Beside the goal, so that `put` renames."""
        with writing(self._folder), staged(self._folder / path) as draft:
            draft.mkdir()
            yield draft

    def put(self, path: str, file: Path, digest: FileDigest) -> None:
        """Rename it; its bytes are on the disk already."""
        with writing(self._folder):
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            commit(file, self._folder / path)


class S3Place:
    """A prefix on S3; files lie on this machine only until they are stored."""

    def __init__(self, uri: str, scratch: Path):
        """Nothing is asked of S3 yet.

        Args:
            uri: `s3://bucket/prefix`.
            scratch: A folder of this machine with room for the files that are written at one time.
        """
        # Late: S3's client takes its time to import.
        from tasks.remote.s3 import parse_s3
        from tasks.stores.s3.objects import S3Objects

        self._objects = S3Objects(parse_s3(uri), page_size=1000)
        self._scratch = scratch

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return self._objects.uri("")

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether an object stands there that S3 has proved to have this content."""
        return self._objects.find(path) == digest

    @contextmanager
    def draft(self, path: str) -> Generator[Path]:
        """In the scratch folder."""
        with writing(self._scratch), staged(self._scratch / Path(path).name) as draft:
            draft.mkdir()
            yield draft

    def put(self, path: str, file: Path, digest: FileDigest) -> None:
        """Send it, in parts where it is large; an upload that was broken off is taken up again."""
        from tasks.stores.s3.upload import upload_file

        upload_file(self._objects, path, file, digest)


def open_place(uri: str, scratch: Path) -> ShardPlace:
    """The place at `file:///...` or `s3://...`; errors as of the two."""
    return S3Place(uri, scratch) if uri.startswith("s3://") else FolderPlace(local_path(uri))


@contextmanager
def working_in(uri: str) -> Generator[None]:
    """Use a place on S3 for as long as the block runs, and remove its files at the end.

    They stay after an error that another try may not meet, and where another run uses the place: whoever ends last
    removes them. A run that was killed cannot say that it ended, so its note counts for a day. What could not be
    removed is left to `sweep_places`.

    Raises:
        StoreError: S3 cannot be written.
    """
    from tasks.remote.s3 import parse_s3
    from tasks.stores.s3.objects import S3Objects

    objects = S3Objects(parse_s3(uri), page_size=1000)
    note = f"{_USERS}/{secrets.token_hex(8)}"
    objects.put(note, b"", hash_bytes(b""))
    is_kept = False
    try:
        yield
    except BaseException as error:
        is_kept = may_be_mended(error)
        raise
    finally:
        try:
            objects.delete(note)
            used = _changed_at(uri, _USERS).values()
            if not is_kept and not any(time.time() - changed_at < _USED_SECONDS for changed_at in used):
                _remove_place(uri)
        except StoreError as error:
            # What the run has made stands, and what it failed with is told: neither must be lost over this.
            logger.warning("%s: files of the merge could not be removed; they are in a week: %s", uri, error)


def sweep_places(uri: str) -> None:
    """Remove the places on S3 directly under a prefix that nobody has written to for a week, if that can be done."""
    try:
        for place, changed_at in _changed_at(uri).items():
            if time.time() - changed_at > _KEPT_SECONDS:
                logger.info("%s/%s: nobody came back to it for a week; it is removed", uri, place)
                _remove_place(f"{uri}/{place}")
    except StoreError as error:
        logger.warning("%s: old files could not be removed; the next run tries again: %s", uri, error)


def _changed_at(uri: str, folder: str = "") -> dict[str, float]:
    """When anything was last written under each name directly under a prefix: seconds since the epoch."""
    from tasks.remote.s3 import parse_s3
    from tasks.stores.s3.objects import S3Objects

    objects = S3Objects(parse_s3(uri), page_size=1000)
    begin = objects.place.key(folder) + "/"
    newest: dict[str, float] = {}
    for page in objects.pages("list_objects_v2", begin):
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(begin).partition("/")[0]
            newest[name] = max(newest.get(name, 0.0), entry["LastModified"].timestamp())
    return newest


def _remove_place(uri: str) -> None:
    from tasks.stores.s3.store import S3Store

    S3Store(uri).delete_tree("")
