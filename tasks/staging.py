"""Nothing half-written ever stands under its own name: it is written beside its goal, brought to disk, then renamed.

A draft is `.staging-<token>` and belongs to the process that holds the lock on `.staging-<token>.lock`. The kernel
drops the lock when the process ends in whatever way, so no process id is compared (ids are used again, and mean
nothing to another container on the same volume). Where a file system has no locks, drafts work all the same, but
those of killed writers stay.
"""

import errno
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tasks.digests import hash_file
from tasks.errors import StoreError
from tasks.records import FileDigest

logger = logging.getLogger(__name__)

_PREFIX = ".staging-"
LOCK_SUFFIX = ".lock"
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems answer that have no locks."""
_ADVICE = {
    errno.EACCES: "give this user the right to write there, or choose another place",
    errno.EPERM: "give this user the right to write there, or choose another place",
    errno.EROFS: "the file system is mounted read-only; choose another place",
    errno.ENOSPC: "make room or choose another place",
    errno.EDQUOT: "the quota is used up; make room or choose another place",
    errno.ENOTDIR: "a part of this path is a file; choose another place",
}


@contextmanager
def staged(goal: Path) -> Generator[Path]:
    """A path beside `goal` at which a file or a folder can be made, to be named by `commit`.

    What is still there at the end is removed, and so is what killed writers left in the folder of `goal`.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    sweep(goal.parent)
    draft = goal.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
    lock = draft.with_name(draft.name + LOCK_SUFFIX)
    with ExitStack() as owned:
        try:
            owned.enter_context(locked(lock))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            yield draft
        finally:
            remove(draft)
            lock.unlink(missing_ok=True)


def commit(draft: Path, goal: Path) -> None:
    """Give a draft its name, at once and for good: readers see all of it, also after a power failure.

    The files in it were brought to disk by `write_file`; its folders are here. A file or an empty folder that stands
    at `goal` is replaced.

    Raises:
        OSError: a folder that is not empty stands there, or as the file system says.
    """
    for folder in (draft, *draft.rglob("*")):
        if folder.is_dir():
            sync(folder)
    os.replace(draft, goal)
    sync(goal.parent)


def write_file(goal: Path, source: Path | bytes) -> FileDigest:
    """Write one file through to the disk; what is there now, hashed from there.

    Always a copy, never a hard link: the source may be edited later.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        goal.write_bytes(source)
    else:
        shutil.copyfile(source, goal)
    sync(goal)
    return hash_file(goal)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, prefix: str = _PREFIX, kept_seconds: float = 0.0) -> None:
    """Remove the drafts of writers that are gone; those of living ones stay.

    Args:
        folder: Where the drafts lie.
        prefix: Of their names.
        kept_seconds: How long drafts are left alone, counted from the last change of their lock file.
    """
    for lock in folder.glob(f"{prefix}*{LOCK_SUFFIX}"):
        draft = lock.with_suffix("")
        with suppress(FileNotFoundError):  # Its writer has just ended.
            try:
                if not kept_seconds or time.time() - lock.stat().st_mtime >= kept_seconds:
                    _sweep_draft(draft, lock)
            except PermissionError as error:
                logger.warning("%s, which a writer that was killed left behind, cannot be removed: %s", draft, error)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Generator[None]:
    """Hold an exclusive lock, against threads and other processes.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is false.
    """
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock before may have removed the file: a lock on a file without a name guards nothing.
            if _is_at(file.fileno(), path):
                yield
                return


@contextmanager
def writing(place: Path) -> Generator[None]:
    """Say what could not be written and what to do, in the project's errors.

    Raises:
        StoreError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "look at the file system")
        raise StoreError(f"{place}: cannot be written: {error}; nothing half-written is left; {advice}") from error


def existing_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists.

    Raises:
        StoreError: a file is in the way.
    """
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise StoreError(f"{path}: {nearest} is no folder; choose another place")
    return nearest


def check_space(place: Path, n_bytes: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        StoreError: the file system of `place` has less than `n_bytes` free, or a file is in the way.
    """
    free = shutil.disk_usage(existing_folder(place)).free
    if free < n_bytes:
        raise StoreError(f"{place}: {n_bytes:,} bytes to write, {free:,} free; {_ADVICE[errno.ENOSPC]}")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sweep_draft(draft: Path, lock: Path) -> None:
    with lock.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # Its writer lives, or there are no locks here that could tell.
        if _is_at(file.fileno(), lock):
            if os.path.lexists(draft):
                logger.warning("removing %s, which a writer that was killed left behind", draft)
            remove(draft)
            lock.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
