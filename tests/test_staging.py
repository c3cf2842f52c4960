"""Drafts: whole or gone; those of the dead are swept up, those of the living are not."""

import errno
import fcntl
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.digests import hash_bytes
from tasks.errors import StoreError
from tasks.staging import check_space, commit, existing_folder, staged, sweep, write_file, writing

WRITER = """
import sys, time
from pathlib import Path
from tasks.staging import staged
with staged(Path(sys.argv[1]) / "goal") as draft:
    draft.mkdir()
    (draft / "half").write_bytes(b"0" * 1000)
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_folder_appears_at_the_end_and_not_before(tmp_path: Path):
    goal = tmp_path / "deep/goal"
    with staged(goal) as draft:
        written = write_file(draft / "inner/file", b"x")
        assert draft.parent == goal.parent
        assert not goal.exists()
        commit(draft, goal)
    assert written == hash_bytes(b"x")
    assert (goal / "inner/file").read_bytes() == b"x"
    assert list(goal.parent.iterdir()) == [goal]


def test_a_file_and_an_empty_folder_are_replaced_but_no_full_one(tmp_path: Path):
    for name in ("file", "empty", "full"):
        with staged(tmp_path / name) as draft:
            write_file(draft if name == "file" else draft / "new", b"new")
            if name == "file":
                (tmp_path / name).write_bytes(b"old")
            else:
                (tmp_path / name).mkdir()
            if name == "full":
                (tmp_path / name / "old").touch()
                with pytest.raises(OSError, match="not empty"):
                    commit(draft, tmp_path / name)
            else:
                commit(draft, tmp_path / name)
    assert (tmp_path / "file").read_bytes() == (tmp_path / "empty/new").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file", "full", "new", "old"]


def test_what_is_written_is_a_copy_and_no_link(tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    assert write_file(tmp_path / "goal", source) == hash_bytes(b"abc")
    source.write_bytes(b"edited")
    assert (tmp_path / "goal").read_bytes() == b"abc"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error), staged(tmp_path / "goal") as draft:
        write_file(draft / "file", b"x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_was_not_named_goes(tmp_path: Path):
    with staged(tmp_path / "goal") as draft:
        write_file(draft / "part", b"dropped")
    with staged(tmp_path / "goal") as draft:
        draft.write_bytes(b"dropped")
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_killed_writer_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as doomed:
        assert doomed.stdout is not None and doomed.stdout.readline() == "writing\n"
        doomed.kill()
    (left,) = tmp_path.glob(".staging-*[!k]")
    with staged(tmp_path / "mine") as living, caplog.at_level(logging.WARNING):
        living.write_bytes(b"mine")
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == [living, living.with_name(living.name + ".lock")]
    assert list(tmp_path.iterdir()) == []
    assert f"removing {left}, which a writer that was killed left behind" in caplog.text


def test_what_is_no_draft_is_never_swept(tmp_path: Path):
    for name in (".staging-notes", ".git", "file.lock"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".staging-notes", "file.lock"]


def test_without_locks_drafts_work_and_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    for name in (".staging-other", ".staging-other.lock"):
        (tmp_path / name).touch()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with staged(tmp_path / "goal") as draft:
        write_file(draft, b"x")
        commit(draft, tmp_path / "goal")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".staging-other", ".staging-other.lock", "goal"]


def test_a_draft_of_somebody_else_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / ".staging-theirs").mkdir()
    (tmp_path / ".staging-theirs.lock").touch()
    monkeypatch.setattr(shutil, "rmtree", refuse)
    sweep(tmp_path)
    assert "staging-theirs, which a writer that was killed left behind, cannot be removed" in caplog.text


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "make room or choose another place"),
        (errno.EDQUOT, "the quota is used up; make room or choose another place"),
        (errno.EROFS, "the file system is mounted read-only"),
        (errno.EIO, "look at the file system"),
    ],
)
def test_what_cannot_be_written_is_told_with_what_to_do(tmp_path: Path, code: int, advice: str):
    message = f"goal: cannot be written: .*{os.strerror(code)}; nothing half-written is left; {advice}"
    with pytest.raises(StoreError, match=message), writing(tmp_path / "goal"), staged(tmp_path / "goal"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"file/goal: cannot be written: .*; nothing half-written"),
        writing(tmp_path / "file/goal"),
        staged(tmp_path / "file/goal"),
    ):
        pass
    with pytest.raises(StoreError, match=r"file/goal: .*file is no folder; choose another place"):
        existing_folder(tmp_path / "file/goal")


def test_too_little_space_is_refused_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1234))
    check_space(tmp_path / "new/goal", 1234)
    with pytest.raises(StoreError, match="goal: 2,000 bytes to write, 1,234 free; make room"):
        check_space(tmp_path / "new/goal", 2000)
