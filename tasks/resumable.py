"""Long work that outlives its writer: what a killed one has finished is there for the next one that does the same.

A draft is `.resumable-<key>` beside its goal and belongs to the process that holds the lock on
`.resumable-<key>.lock`, as in `tasks.staging`. The key stands for everything that decides what is written. What is in
the draft was written by somebody who may have died at any moment: whoever goes on with it proves it first.
"""

import logging
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tasks.errors import DeviceError, ModelChangedError, StoreError
from tasks.staging import LOCK_SUFFIX, NO_LOCKS, check_space, existing_folder, locked, remove, staged, sweep

logger = logging.getLogger(__name__)

_PREFIX = ".resumable-"
_KEY_DIGITS = 16
KEPT_SECONDS = 7 * 24 * 3600.0
"""How long a draft waits for a writer that goes on with it."""
# After these the same work may succeed: room was made, a device came back, a model was written back. Others mean that
# the inputs must change, and then the work is another one.
_MENDABLE = (OSError, MemoryError, StoreError, DeviceError, ModelChangedError)


@contextmanager
def resumable(goal: Path, key: str, *, wait: bool = True) -> Generator[Path]:
    """A folder beside `goal` for long work, with what an earlier writer of the same key has left in it.

    At the end it is removed with all that was not renamed out of it. It stays for the next writer if this one is
    killed, interrupted, or ends with an error that another try may not meet. Drafts that nobody came back to are
    removed after `KEPT_SECONDS`. Where a file system has no locks, a folder that is not kept takes its place.

    Args:
        goal: What is made of it.
        key: At least 16 hex digits, over everything that decides what is written.
        wait: Whether to wait for another living writer of that key to end. Otherwise this one gets a folder of its
            own, which is not kept.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    draft = goal.with_name(f"{_PREFIX}{key[:_KEY_DIGITS]}")
    with ExitStack() as owned:
        if not _is_locked(draft, wait, owned):
            private = owned.enter_context(staged(goal))
            private.mkdir()
            yield private
            return
        os.utime(_lock_of(draft))
        sweep(goal.parent)
        sweep(goal.parent, _PREFIX, KEPT_SECONDS)
        draft.mkdir(exist_ok=True)
        try:
            yield draft
        except BaseException as error:
            _leave(draft, is_kept=may_be_mended(error))
            raise
        _leave(draft, is_kept=False)


def make_room(folder: Path, n_bytes: int) -> None:
    """Remove drafts that nobody is working on if `n_bytes` do not fit into `folder` beside them.

    Raises:
        StoreError: a file is in the way.
    """
    try:
        check_space(folder, n_bytes)
    except StoreError:
        existing_folder(folder)
        sweep(folder, _PREFIX)


def count_abandoned_bytes(folder: Path) -> int:
    """Bytes of the drafts in a folder that nobody is working on: whoever needs their room can have it."""
    total = 0
    for lock in folder.glob(f"{_PREFIX}*{LOCK_SUFFIX}"):
        with suppress(OSError), locked(lock, wait=False):  # Of a living writer, or not ours.
            files = (file.lstat() for file in lock.with_suffix("").rglob("*"))
            # What they take, not their length: a file system that reserves no space leaves holes.
            total += sum(file.st_blocks * 512 for file in files)
    return total


def _lock_of(draft: Path) -> Path:
    return draft.with_name(draft.name + LOCK_SUFFIX)


def _is_locked(draft: Path, wait: bool, owned: ExitStack) -> bool:
    """Lock the draft until `owned` is closed; whether that could be done."""
    try:
        try:
            owned.enter_context(locked(_lock_of(draft), wait=False))
        except BlockingIOError:
            if not wait:
                return False
            logger.info("%s: somebody else is writing the same; waiting until they have ended", draft)
            owned.enter_context(locked(_lock_of(draft)))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def may_be_mended(error: BaseException) -> bool:
    """Whether doing the same again may succeed; what is no Exception is a signal from outside."""
    return not isinstance(error, Exception) or isinstance(error, _MENDABLE) or isinstance(error.__cause__, OSError)


def _leave(draft: Path, is_kept: bool) -> None:
    if is_kept and any(draft.iterdir()):
        logger.info("%s: what is finished is kept for the next run with equal inputs", draft)
        return
    remove(draft)
    _lock_of(draft).unlink(missing_ok=True)
