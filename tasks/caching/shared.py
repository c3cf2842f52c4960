"""Results and downloads under a prefix on S3, so that what one machine has computed or fetched serves all.

    results/<sha256 of kind and key>.json     one entry each (`tasks.caching.entries`)
    files/<sha256 of the content>             downloads, if they are shared; used/<the same> is touched at each use
    cache.json  pruned.json                   whose prefix it is; when somebody last looked for too much

Nothing waits for it and nothing fails by it. What cannot be read is a miss; what cannot be written is not shared; after
a fault it is left alone for ten minutes in this process, and that is said once. An object is there whole or not at all,
and entries are written under the condition that nobody else was first, so writers need no locks. Only content, settings
and numbers are in it, no credentials; it is read and written as who the run is on S3 (`tasks.remote.access`).
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from tasks.caching.entries import decode_entry, encode_entry, entry_name
from tasks.caching.shared_pruning import FILES, RESULTS, USED, prune_when_due
from tasks.digests import canonical_json, hash_bytes
from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.records import FileDigest
from tasks.remote.s3 import parse_s3
from tasks.stores.s3.objects import S3Objects, Stored
from tasks.stores.s3.upload import upload_file

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_MARK = "cache.json"
_ABOUT = canonical_json({"about": "shared cache of lm-cocktail-flows", "schema_version": 1}).encode()
_PAGE_SIZE = 1000
_PUT_ATTEMPTS = 3
_PAUSE_SECONDS = 600.0
_LOOK_SECONDS = 6 * 3600.0
# S3 knows when an object was written, not when it was read: an entry that is read is written again, once a day at most.
_NOTE_USE_AFTER_SECONDS = 24 * 3600.0

# Tasks of one run open the cache anew, so what they found out about a prefix is kept here, by its URI. Monotonic time.
_paused_until: dict[tuple[str, str], float] = {}
_looked_until: dict[str, float] = {}


class SharedCache:
    """A prefix on S3; objects of one process and of many machines may use it at once."""

    def __init__(self, uri: str, max_bytes: int, has_downloads: bool = False):
        """Nothing is asked of S3 yet.

        Args:
            uri: `s3://bucket/prefix`.
            max_bytes: The bound; it holds about once a day (`tasks.caching.shared_pruning`).
            has_downloads: Whether files are shared as well as results.
        """
        self.uri = uri
        self.max_bytes = max_bytes
        self.has_downloads = has_downloads

    @cached_property
    def _objects(self) -> S3Objects:
        # At the first use: only then a recipe has been read, which may say who we are on S3.
        return S3Objects(parse_s3(self.uri), _PAGE_SIZE)

    def problem(self) -> str | None:
        """Say why it can never be used as it is set up: names, credentials, rights. None if it can, or S3 is down.

        The first who comes to a prefix also shows that it can be written, and with conditions.
        """
        try:
            if self._objects.read(_MARK) is None:
                self._objects.put(_MARK, _ABOUT, hash_bytes(_ABOUT), IfNoneMatch="*")
        except TransientStoreError as error:
            self._pause("read", error)
        except StoreError as error:
            # The run ends with this; what still asks meanwhile need not say it, too.
            _paused_until.update({(self.uri, use): time.monotonic() + _PAUSE_SECONDS for use in ("read", "written")})
            return f"shared cache {error}; mend it, or run without it (cache.shared, --cache s3://...)"
        except ClientError:
            pass  # Another machine was as fast.
        return None

    def get(self, kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
        """The result that some machine has kept; None if there is none that can be trusted."""
        path = _result_path(kind, key)
        found = self._try("read", lambda objects: objects.read(path), None)
        if found is None:
            return None
        value = decode_entry(found.data, kind, key)
        if value is None:
            # Whoever computes it again finds it damaged too, and puts the new one in its place.
            logger.warning("%s does not agree with its digest; it is made again", self._objects.uri(path))
        elif time.time() - found.changed_at > _NOTE_USE_AFTER_SECONDS:
            self._try("written", lambda objects: _write_again(objects, path, found), None)
        return value

    def put(self, kind: str, key: Mapping[str, object], value: Mapping[str, object]) -> None:
        """Share a result; a sound one that stands there already stays. ValueError for NaN or infinity."""
        content = encode_entry(kind, key, value)

        def is_sound(data: bytes) -> bool:
            return decode_entry(data, kind, key) is not None

        self._try("written", lambda objects: _store(objects, _result_path(kind, key), content, is_sound), None)
        self._prune_when_due()

    def find_file(self, digest: FileDigest) -> str | None:
        """The object with this content, `s3://...`, and note the use; None if there is none, or files are not shared.

        Prove what comes: here only the noted digest was compared.
        """
        if not self.has_downloads:
            return None
        path = f"{FILES}/{digest.sha256}"
        if self._try("read", lambda objects: objects.find(path), None) != digest:
            return None
        self._note_file(digest)
        return self._objects.uri(path)

    def add_file(self, source: Path, digest: FileDigest) -> None:
        """Share a file by its content, which the caller has proven, unless it is there."""
        if self.has_downloads:
            self._try("written", lambda objects: _send_file(objects, source, digest), None)
            self._note_file(digest)
            self._prune_when_due()

    def _note_file(self, digest: FileDigest) -> None:
        # An object beside it: writing the file again would cost its size.
        path = f"{USED}/{digest.sha256}"
        self._try("written", lambda objects: objects.put(path, b"", hash_bytes(b"")), None)

    def _prune_when_due(self) -> None:
        if time.monotonic() >= _looked_until.get(self.uri, 0.0):
            _looked_until[self.uri] = time.monotonic() + _LOOK_SECONDS
            self._try("written", lambda objects: prune_when_due(objects, self.max_bytes), None)

    def _try(self, use: str, call: Callable[[S3Objects], Result], instead: Result) -> Result:
        """What `call` gives; `instead`, where S3 is or was at fault."""
        if time.monotonic() < _paused_until.get((self.uri, use), 0.0):
            return instead
        try:
            return call(self._objects)
        except (StoreError, ClientError) as error:
            self._pause(use, error)
            return instead

    def _pause(self, use: str, error: Exception) -> None:
        level = logging.INFO if (self.uri, use) in _paused_until else logging.WARNING
        _paused_until[self.uri, use] = time.monotonic() + _PAUSE_SECONDS
        logger.log(
            level, "shared cache %s cannot be %s; the run goes on without it, and tries it again in %.0f minutes: %s",
            self.uri, use, _PAUSE_SECONDS / 60, error,
        )  # fmt: skip


def _result_path(kind: str, key: Mapping[str, object]) -> str:
    return f"{RESULTS}/{entry_name(kind, key)}.json"


def _store(objects: S3Objects, path: str, content: bytes, is_sound: Callable[[bytes], bool]) -> None:
    """Write an entry where there is none, or a damaged one; of several writers the first stays."""
    condition = {"IfNoneMatch": "*"}
    for _ in range(_PUT_ATTEMPTS):
        try:
            return objects.put(path, content, hash_bytes(content), **condition)
        except (ClientError, NotFoundError):
            standing = objects.read(path)
        if standing is not None and is_sound(standing.data):
            return None
        condition = {"IfMatch": standing.etag} if standing else {"IfNoneMatch": "*"}
    logger.debug("%s is written by others at this moment", objects.uri(path))
    return None


def _write_again(objects: S3Objects, path: str, found: Stored) -> None:
    with suppress(ClientError, NotFoundError):  # Another machine changed or pruned it meanwhile.
        objects.put(path, found.data, hash_bytes(found.data), IfMatch=found.etag)


def _send_file(objects: S3Objects, source: Path, digest: FileDigest) -> None:
    path = f"{FILES}/{digest.sha256}"
    if objects.find(path) != digest:
        upload_file(objects, path, source, digest)
