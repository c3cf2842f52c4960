import errno
import fcntl
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.errors import CheckpointError, StoreError
from tasks.merge.ranges import open_descriptor
from tasks.merge.staging import check_output, check_space, staged


def test_the_output_appears_at_the_end_and_not_before(tmp_path: Path):
    output = tmp_path / "deep/out"
    with staged(output) as staging:
        (staging / "file").write_text("x")
        assert staging.parent == output.parent
        assert not output.exists()
    assert (output / "file").read_text() == "x"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error), staged(tmp_path / "out") as staging:
        (staging / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_the_place(tmp_path: Path, code: int):
    with (
        pytest.raises(StoreError, match="out: no space is left; nothing of the merged model was kept"),
        staged(tmp_path / "out"),
    ):
        raise OSError(code, "full")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match="file/out: the merge stopped, and nothing of it was kept"),
        staged(tmp_path / "file/out"),
    ):
        pass


def test_what_a_killed_merge_left_is_removed_but_not_what_a_living_one_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    dead, living, other = (tmp_path / name for name in (".out.partial-1-a", ".out.partial-2-b", ".outer.partial-1-a"))
    for folder in (dead, living, other):
        folder.mkdir()
        (folder / "file").touch()
    with open_descriptor(living, os.O_RDONLY) as lock, caplog.at_level(logging.WARNING):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with staged(tmp_path / "out"):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {living.name, other.name, "out"}
    assert f"removing {dead}" in caplog.text


def test_an_output_that_is_taken_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="the folder is not empty; name a new one"):
        check_output(tmp_path)
    with pytest.raises(CheckpointError, match="this is a file; name a new folder"):
        check_output(tmp_path / "file")
    with pytest.raises(CheckpointError, match="this is a mount point; name a new folder inside it"):
        check_output(Path("/"))


def test_an_empty_folder_may_be_the_output(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    with staged(check_output(output)) as staging:
        (staging / "file").touch()
    assert (output / "file").exists()


def test_too_little_space_is_refused_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1234))
    check_space(tmp_path / "new/out", 1234)
    with pytest.raises(StoreError, match=r"takes 2,000 bytes, and only 1,234 are free"):
        check_space(tmp_path / "new/out", 2000)
