"""Drafts on a file system: written beside the goal, renamed to it, and swept up when their writer was killed.

A draft is `.staging-<token>` and belongs to the process that holds the lock on `.staging-<token>.lock`. The kernel
drops the lock when the process ends in whatever way, so no process id is compared (ids are used again, and mean
nothing to another container on the same volume).
"""

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.checkpoint import hash_file
from tasks.errors import StoreError
from tasks.stores.store import Content

logger = logging.getLogger(__name__)

_PREFIX = ".staging-"
_LOCK_SUFFIX = ".lock"


@contextmanager
def staged(folder: Path) -> Generator[Path]:
    """A path in `folder` at which a file or a folder can be made and then renamed to its goal.

    What is still there at the end is removed, and so is what killed writers left in `folder`.
    """
    sweep(folder)
    draft = folder / f"{_PREFIX}{secrets.token_hex(8)}"
    lock = draft.with_name(draft.name + _LOCK_SUFFIX)
    with locked(lock):
        try:
            yield draft
        finally:
            _remove(draft)
            lock.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the drafts of writers that are gone; those of living ones stay."""
    for lock in folder.glob(f"{_PREFIX}*{_LOCK_SUFFIX}"):
        with suppress(FileNotFoundError), lock.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_at(file.fileno(), lock):
                logger.info("removing %s, left by a writer that was killed", lock.with_suffix(""))
                _remove(lock.with_suffix(""))
                lock.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive lock, against threads and other processes; waits for it."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock before may have removed the file: a lock on a file without a name guards nothing.
            if _is_at(file.fileno(), path):
                yield
                return


def write_atomically(goal: Path, content: Content) -> None:
    """Write, verify and name one file.

    Raises:
        StoreError: what was written is not what was meant.
        OSError: as the file system says.
    """
    with staged(goal.parent) as draft:
        write_verified(draft, content)
        os.replace(draft, goal)
        sync_folder(goal.parent)


def write_verified(goal: Path, content: Content) -> None:
    """Write one file through to the disk and hash it again from there.

    Always a copy, never a hard link: the work folder it came from may be edited later.

    Raises:
        StoreError: the bytes read back do not have the expected digest.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content.source, bytes):
        goal.write_bytes(content.source)
    else:
        shutil.copyfile(content.source, goal)
    with goal.open("rb") as file:
        os.fsync(file.fileno())
    if (found := hash_file(goal)) != content.digest:
        origin = "memory" if isinstance(content.source, bytes) else content.source
        raise StoreError(
            f"{goal}: expected sha256 {content.digest.sha256} ({content.digest.size} bytes), found {found.sha256} "
            f"({found.size} bytes) after copying from {origin}; it changed while it was released, or the disk is faulty"
        )


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
