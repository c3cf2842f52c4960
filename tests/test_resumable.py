"""Drafts that outlive their writer: who gets them, when they stay and when they go."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.errors import CheckpointError, NonFiniteError, StoreError, WorkerDiedError
from tasks.resumable import KEPT_SECONDS, count_abandoned_bytes, make_room, resumable

KEY, OTHER = "0123456789abcdef" * 4, "f" * 64

WRITER = """
import os, signal, sys
from pathlib import Path
from tasks.resumable import resumable
with resumable(Path(sys.argv[1]) / "goal", sys.argv[2]) as draft:
    (draft / "shard").write_bytes(b"1" * 5000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def leave_behind(tmp_path: Path) -> Callable[..., Path]:
    """The draft of a writer that was killed, so many days ago."""

    def leave(key: str = KEY, days: float = 0.0) -> Path:
        killed = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), key], cwd=Path(__file__).parents[1])
        assert killed.returncode == -9
        draft = tmp_path / f".resumable-{key[:16]}"
        then = time.time() - days * 24 * 3600
        os.utime(f"{draft}.lock", (then, then))
        return draft

    return leave


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_is_there_for_the_next_with_the_same_key_and_goes_when_it_has_ended(
    tmp_path: Path, leave_behind: Callable[..., Path]
):
    left = leave_behind()
    # Also for another goal in that folder, and after longer than drafts of others are kept.
    os.utime(f"{left}.lock", (0, 0))
    with resumable(tmp_path / "another goal", KEY) as draft:
        assert draft == left
        assert names(draft) == ["shard"]
        (draft / "shard").rename(tmp_path / "named")
    assert names(tmp_path) == ["named"]


def test_another_key_gets_an_empty_folder_and_drafts_that_nobody_came_back_to_go_after_a_week(
    tmp_path: Path, leave_behind: Callable[..., Path]
):
    left = leave_behind(days=6.9)
    with resumable(tmp_path / "goal", OTHER) as draft:
        assert names(draft) == []
    assert names(left) == ["shard"]
    old = time.time() - KEPT_SECONDS
    os.utime(f"{left}.lock", (old, old))
    with resumable(tmp_path / "goal", OTHER):
        assert not left.exists()
    assert names(tmp_path) == []


def unreadable() -> CheckpointError:
    error = CheckpointError("it cannot be read")
    error.__cause__ = OSError(errno.EIO, "I/O error")
    return error


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (KeyboardInterrupt(), True),
        (SystemExit(), True),
        (OSError(errno.ENOSPC, "no space"), True),
        (StoreError("no space"), True),
        (WorkerDiedError("killed"), True),
        (unreadable(), True),
        (NonFiniteError("NaN"), False),
        (CheckpointError("damaged"), False),
        (ValueError("wrong"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_another_try_may_not_meet_keeps_the_draft(tmp_path: Path, error: BaseException, is_kept: bool):
    with pytest.raises(type(error)), resumable(tmp_path / "goal", KEY) as draft:
        (draft / "shard").touch()
        raise error
    assert names(tmp_path) == ([draft.name, f"{draft.name}.lock"] if is_kept else [])


def test_an_empty_draft_is_never_kept(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path / "goal", KEY):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_second_writer_waits_for_the_first_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    seen: list[str] = []

    def second() -> None:
        with resumable(tmp_path / "goal", KEY) as draft:
            seen.extend(["second", *names(draft)])

    writer = threading.Thread(target=second)
    with resumable(tmp_path / "goal", KEY) as draft, caplog.at_level(logging.INFO):
        (draft / "shard").touch()
        writer.start()
        while "somebody else is writing the same; waiting" not in caplog.text:
            time.sleep(0.005)
        seen.append("first")
    writer.join()
    # The first has ended well, so that nothing of it is left.
    assert seen == ["first", "second"]
    assert names(tmp_path) == []


def test_who_does_not_want_to_wait_gets_a_folder_of_its_own_that_is_not_kept(tmp_path: Path):
    with resumable(tmp_path / "goal", KEY) as first:
        with pytest.raises(KeyboardInterrupt), resumable(tmp_path / "goal", KEY, wait=False) as second:
            assert second != first
            (second / "shard").touch()
            raise KeyboardInterrupt
        assert names(tmp_path) == [first.name, f"{first.name}.lock"]


def test_without_locks_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path / "goal", KEY) as draft:
        (draft / "shard").touch()
        raise KeyboardInterrupt
    assert not draft.exists()


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="I/O error"), resumable(tmp_path / "goal", KEY):
        pass


def test_drafts_that_nobody_works_on_make_room_and_those_of_living_writers_do_not(
    tmp_path: Path, leave_behind: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    left = leave_behind(OTHER)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with resumable(tmp_path / "goal", KEY) as living:
        (living / "shard").write_bytes(b"1" * 5000)
        # What 5000 bytes of the dead writer take, in whole blocks of some size; the living one's do not count.
        assert 5000 <= count_abandoned_bytes(tmp_path) < 10_000
        make_room(tmp_path, 1000)
        assert left.exists()
        make_room(tmp_path, 1001)
        assert not left.exists()
        assert names(living) == ["shard"]
    assert count_abandoned_bytes(tmp_path / "none") == 0


def test_a_file_where_room_is_to_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is no folder; choose another place"):
        make_room(tmp_path / "file", 1)
