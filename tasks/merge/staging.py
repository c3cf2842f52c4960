"""The output appears whole or not at all: written beside its place, brought to disk, then renamed."""

import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from tasks.errors import CheckpointError, StoreError
from tasks.merge.ranges import open_descriptor, sync

logger = logging.getLogger(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def check_output(output: Path) -> Path:
    """The place of the output with links resolved; it may be an empty folder.

    Raises:
        CheckpointError: something is there already, or the place cannot be renamed to.
    """
    resolved = output.resolve()
    if resolved.is_dir():
        if os.path.ismount(resolved):
            raise CheckpointError(f"{output}: this is a mount point; name a new folder inside it")
        if any(resolved.iterdir()):
            raise CheckpointError(f"{output}: the folder is not empty; name a new one, or remove what is in it")
    elif resolved.exists():
        raise CheckpointError(f"{output}: this is a file; name a new folder for the merged model")
    return resolved


def check_space(output: Path, n_bytes: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        StoreError: the file system of `output` has less than `n_bytes` free.
    """
    existing = next(folder for folder in (output, *output.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < n_bytes:
        raise StoreError(
            f"{output}: the merged model takes {n_bytes:,} bytes, and only {free:,} are free there; "
            "free some space or name another place"
        )


@contextmanager
def staged(output: Path) -> Generator[Path]:
    """A folder beside `output` that becomes `output` at the end of the block, or vanishes on any error.

    What an earlier process left because it was killed is removed first.

    Raises:
        StoreError: the place cannot be written, or it is full.
    """
    with _as_store_error(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(output)
        # The process id is for people; whether the process lives is told by the lock.
        staging = output.parent / f"{_prefix(output)}{os.getpid()}-{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            with open_descriptor(staging, os.O_RDONLY) as lock:
                _lock(lock)
                yield staging
                _commit(staging, output)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _commit(staging: Path, output: Path) -> None:
    for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
        sync(folder)
    staging.rename(output)
    sync(output.parent)


def _prefix(output: Path) -> str:
    return f".{output.name}.partial-"


def _remove_leftovers(output: Path) -> None:
    """Remove staging folders that nobody locks.

    A process id would not tell: in a container the killed process and this one may both be number 1.
    """
    for folder in output.parent.glob(f"{escape(_prefix(output))}*"):
        with open_descriptor(folder, os.O_RDONLY) as lock:
            if _lock(lock):
                logger.warning("removing %s, which a merge that was killed left behind", folder)
                shutil.rmtree(folder, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Lock a folder until its descriptor is closed; False if another holds it or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _as_store_error(output: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StoreError(f"{output}: no space is left; nothing of the merged model was kept") from error
        raise StoreError(f"{output}: the merge stopped, and nothing of it was kept: {error}") from error
