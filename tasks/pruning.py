"""What the cache gives up when it is full, and what writers that are gone left in it.

Bounded together are results, blobs and downloaded files, least recently used first. What a run was given the path of
stays for a day after its last use, whatever the bound says; and however much that is, a tenth of the bound is left to
results, since losing them costs more time than they save space.
"""

import errno
import fcntl
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tasks.staging import sweep

logger = logging.getLogger(__name__)

RESULTS, BLOBS, FILES, MODELS = "results", "blobs", "files", "models"
PARTIAL_PREFIX = ".partial-"
LOCK_SUFFIX = ".lock"
USED_SUFFIX = ".used"
"""Beside a downloaded file; its time is that of the last use. The file's own times must stay: its remembered digest
hangs on them."""

# Pruning goes a little below the bound, so that it does not run again at the next entry.
_PRUNE_TO = 0.9
_RESERVED = 0.1
_GRACE_SECONDS = 24 * 3600
_PARTIAL_SECONDS = 7 * 24 * 3600


class KeptFile(NamedTuple):
    """A file that pruning may look at."""

    used_at: float
    """Seconds since the epoch."""
    path: Path
    size: int
    """Bytes."""
    has_grace: bool
    """Whether a run may be reading it for a while after it asked for it; results are read at once."""


def kept_bytes(folder: Path) -> int:
    """Bytes of everything in a cache folder that its bound is about."""
    return sum(file.size for file in _kept_files(folder))


def prune(folder: Path, max_bytes: int) -> int:
    """Remove the least recently used until the rest fits; bytes that are left.

    Args:
        folder: Of the cache. What others keep in it is left alone.
        max_bytes: The bound.
    """
    _sweep_drafts(folder)
    now = time.time()
    files = sorted(_kept_files(folder))
    in_use = sum(file.size for file in files if _is_in_use(file, now))
    total = sum(file.size for file in files)
    goal = in_use + max(max_bytes * _PRUNE_TO - in_use, max_bytes * _RESERVED)
    for file in files:
        if total <= goal:
            break
        # Looked at again: another process may have asked for it meanwhile.
        if not _is_in_use(file._replace(used_at=_last_use(file.path) or 0.0), now):
            _used_marker(file.path).unlink(missing_ok=True)
            file.path.unlink(missing_ok=True)
            total -= file.size
    _remove_dangling_models(folder / MODELS)
    return total


def _kept_files(folder: Path) -> Iterator[KeptFile]:
    # Dotted names are drafts and partial downloads.
    for part, pattern in ((RESULTS, "*/[!.]*"), (BLOBS, "[!.]*"), (FILES, "[!.]*/[!.]*")):
        for path in (folder / part).glob(pattern):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # Another process pruned it.
            if path.suffix != USED_SUFFIX and path.is_file():
                used_at = (_last_use(path) or status.st_mtime) if part == FILES else status.st_mtime
                yield KeptFile(used_at, path, status.st_size, has_grace=part != RESULTS)


def _is_in_use(file: KeptFile, now: float) -> bool:
    return file.has_grace and now - file.used_at <= _GRACE_SECONDS


def _last_use(path: Path) -> float | None:
    """When a file was last asked for; None if it is gone."""
    for candidate in (_used_marker(path), path):
        try:
            return candidate.stat().st_mtime
        except FileNotFoundError:
            continue
    return None


def _used_marker(path: Path) -> Path:
    return path.with_name(path.name + USED_SUFFIX)


def _sweep_drafts(folder: Path) -> None:
    parts = (folder / BLOBS, folder / MODELS, folder / FILES)
    for place in (*parts, *(folder / RESULTS).glob("*"), *(folder / FILES).glob("[!.]*")):
        sweep(place)
    for partial in (folder / FILES).glob(f"{PARTIAL_PREFIX}*"):
        if partial.suffix != LOCK_SUFFIX and _is_abandoned(partial):
            _remove_partial(partial)


def _is_abandoned(partial: Path) -> bool:
    try:
        times = [path.lstat().st_mtime for path in (partial, *partial.rglob("*"))]
    except FileNotFoundError:
        return False  # Its download has just ended.
    return time.time() - max(times) > _PARTIAL_SECONDS


def _remove_partial(partial: Path) -> None:
    """Remove a download that was broken off long ago, unless somebody goes on with it right now."""
    lock = partial.with_name(partial.name + LOCK_SUFFIX)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return
        logger.info("removing %s, a download that was broken off more than a week ago", partial)
        shutil.rmtree(partial, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _remove_dangling_models(models: Path) -> None:
    """Remove folders of links of which a goal was pruned."""
    for model in models.glob("[!.]*"):
        with suppress(FileNotFoundError):  # Another process removes it.
            links = [path for path in model.rglob("*") if path.is_symlink()]
            if not all(link.exists() for link in links):
                shutil.rmtree(model, ignore_errors=True)
