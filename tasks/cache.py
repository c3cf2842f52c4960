"""Results that need not be computed twice, known by the content of everything they depend on.

A folder with three parts: `results/` (one JSON file per result, named by the sha256 of what it is the answer to),
`blobs/` (small files named by their own content) and whatever the caller keeps beside them, which is left alone.
Several processes may use it at once: files appear whole, and one that vanishes is a miss.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.digests import canonical_json, hash_bytes, hash_file, hash_json
from tasks.errors import StoreError
from tasks.records import FileDigest
from tasks.settings import CacheSettings
from tasks.staging import staged, sweep
from tasks.values import parse_size

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 50 * 10**9
_RESULTS, _BLOBS = "results", "blobs"
# Pruning goes a little below the bound, so that it does not run again at the next entry.
_PRUNE_TO = 0.9
# A run may still be reading a blob that it was given the path of; results are read at once.
_BLOB_GRACE_SECONDS = 24 * 3600
# A file written again within one tick of the file system's clock keeps its times, as in git's "racy" index entries.
_RACY_NANOSECONDS = 2 * 10**9


def default_cache_folder() -> Path:
    """The cache folder of the user that runs this."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "lm-cocktail-flows"


def open_cache(settings: CacheSettings) -> "ResultCache":
    """The cache that a run was told to use; its folder is made when something is first kept."""
    folder = Path(settings.folder).expanduser() if settings.folder else default_cache_folder()
    return ResultCache(folder.absolute(), parse_size(settings.max_size))


class ResultCache:
    """A folder of results and blobs, bounded in size; what was used least recently goes first."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES):
        self.folder = folder
        self.max_bytes = max_bytes
        # Bytes kept, as of the last look plus our own since; None before the first look.
        self._known_bytes: int | None = None
        self._has_warned = False

    def get(self, kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
        """The result kept under `kind` and `key`; None if there is none that can be trusted.

        Args:
            kind: What was computed, e.g. `score`.
            key: Everything the result depends on, as JSON values: digests, settings, versions. No paths.
        """
        path = self._result_path(kind, key)
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            return _discard(path, f"it cannot be read: {error}")
        value = _verified_value(text, kind, key)
        if value is None:
            return _discard(path, "its content does not agree with its digest")
        _touch(path)
        return value

    def put(self, kind: str, key: Mapping[str, object], value: Mapping[str, object]) -> None:
        """Keep a result. A folder that cannot be written costs the saving, not the run: it is logged, once.

        Raises:
            ValueError: NaN or infinity in key or value.
        """
        entry = {"kind": kind, "key": key, "value": value, "digest": _entry_digest(kind, key, value)}
        path = self._result_path(kind, key)
        try:
            self._write(path, canonical_json(entry).encode())
        except OSError as error:
            level = logging.DEBUG if self._has_warned else logging.WARNING
            logger.log(level, "results are not kept for the next run: %s cannot be written: %s", path, error)
            self._has_warned = True

    def put_blob(self, content: bytes, suffix: str = "") -> Path:
        """A file with this content, named by it; for data that stands in a recipe and is wanted as a file.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self.folder / _BLOBS / f"{hash_bytes(content).sha256}{suffix}"
        try:
            if path.read_bytes() == content:
                _touch(path)
                return path
        except OSError:
            pass  # Not there, or damaged: written anew.
        try:
            self._write(path, content)
        except OSError as error:
            raise StoreError(
                f"cache folder {self.folder} cannot be written: {error}; choose another with --cache DIR"
            ) from error
        return path

    def digest_file(self, path: Path) -> FileDigest:
        """Content of a file, remembered by where it lies and when it changed: gigabytes are hashed once.

        Raises:
            OSError: the file cannot be read.
        """
        resolved = path.resolve()
        before = resolved.stat()
        key = _identity(resolved, before)
        if (known := self.get("file-digest", key)) is not None:
            return FileDigest(known["sha256"], before.st_size)
        digest = hash_file(resolved)
        unchanged = _identity(resolved, resolved.stat()) == key
        age = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns)
        if unchanged and age > _RACY_NANOSECONDS:
            self.put("file-digest", key, {"sha256": digest.sha256})
        return digest

    def _result_path(self, kind: str, key: Mapping[str, object]) -> Path:
        name = hash_json([kind, key])
        return self.folder / _RESULTS / name[:2] / f"{name}.json"

    def _write(self, path: Path, content: bytes) -> None:
        with staged(path) as draft:
            draft.write_bytes(content)
            # Not brought to disk as `commit` does: after a crash the digest tells.
            draft.replace(path)
        if self._known_bytes is None:
            self._known_bytes = sum(size for _, _, size in self._kept_files())
        else:
            self._known_bytes += len(content)
        if self._known_bytes > self.max_bytes:
            self._known_bytes = self._prune()

    def _prune(self) -> int:
        """Remove the least recently used until the rest fits; bytes that are left."""
        now = time.time()
        for folder in (self.folder / _BLOBS, *(self.folder / _RESULTS).glob("*")):
            sweep(folder)
        files = sorted(self._kept_files())
        total = sum(size for _, _, size in files)
        for used_at, path, size in files:
            is_blob = path.parent.name == _BLOBS
            if (not is_blob or now - used_at > _BLOB_GRACE_SECONDS) and total > self.max_bytes * _PRUNE_TO:
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _kept_files(self) -> Iterator[tuple[float, Path, int]]:
        """Time of last use, path and size of every file that pruning may look at."""
        for part in (_RESULTS, _BLOBS):
            for path in (self.folder / part).rglob("[!.]*"):  # Dotted ones are drafts.
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # Another process pruned it.
                if path.is_file():
                    yield status.st_mtime, path, status.st_size


def _entry_digest(kind: str, key: Mapping[str, object], value: object) -> str:
    return hash_json([kind, key, value])


def _verified_value(text: str, kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
    """The value of an entry whose digest is right; None if it is not."""
    try:
        entry = json.loads(text)
        value = entry["value"]
        return value if entry["digest"] == _entry_digest(kind, key, value) else None
    except (ValueError, KeyError, TypeError):
        return None


def _identity(path: Path, status: os.stat_result) -> dict[str, object]:
    # ctime, too: content that is written in place under its old mtime (rsync --times, touch) changes nothing else.
    return {
        "path": str(path),
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _discard(path: Path, reason: str) -> None:
    logger.warning("cache entry %s is removed and computed again: %s", path, reason)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("cache entry %s cannot be removed: %s", path, error)


def _touch(path: Path) -> None:
    """Note a use, for pruning; a cache that may only be read works all the same."""
    try:
        os.utime(path)
    except OSError:
        logger.debug("the use of %s could not be noted", path)
