"""The journal of a draft: what it says is proven before it is believed."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.digests import hash_bytes, hash_file
from tasks.merge import journal as module
from tasks.merge.journal import Journal, find_unchanged, journaled
from tasks.merge.layout import OutputFile, plan_layout
from tasks.records import FileDigest
from tasks.tensors import TensorView

KEY = "k" * 64
# Three files of one tensor each, one of them in a component.
FILES = plan_layout(
    {
        name: TensorView(name, "F32", (5,), Path("x"), 0, part)
        for name, part in [("a", ""), ("b", ""), ("c", "2_Dense")]
    },
    "base",
    20,
).files
FIRST, SECOND, THIRD = (file.path for file in FILES)


def content(file: OutputFile) -> bytes:
    return file.header + file.path.encode().ljust(20)[:20]


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A draft in which a writer has finished two files and begun a third before it was killed."""
    journal = Journal(tmp_path / "model", tmp_path / "journal.jsonl", KEY)
    journal.resume(FILES)
    for file in FILES:
        path = journal.folder / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content(file))
        if file.path != THIRD:
            journal.add(file.path, hash_file(path))
    (tmp_path / "model/config.json").write_text("{}")
    return tmp_path


def resumed(draft: Path, key: str = KEY) -> list[str]:
    with journaled(draft, key, FILES) as journal:
        return list(journal.finished)


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_finished_files_are_found_again_and_all_else_is_removed(draft: Path):
    with journaled(draft, KEY, FILES) as journal:
        assert journal.finished == {file.path: hash_bytes(content(file)) for file in FILES[:2]}
        assert files_in(draft) == ["journal.jsonl", f"model/{FIRST}", f"model/{SECOND}"]


@pytest.mark.parametrize(
    "tail", [b'{"path": "model-0', b'{"path": "x", "size": null, "sha256": ""}\n', b"[1]\n", b"\xff"]
)
def test_a_torn_line_and_what_follows_it_are_ignored_and_the_journal_can_be_written_on(draft: Path, tail: bytes):
    with (draft / "journal.jsonl").open("ab") as file:
        file.write(tail)
    with journaled(draft, KEY, FILES) as journal:
        (journal.folder / THIRD).parent.mkdir(exist_ok=True)
        (journal.folder / THIRD).write_bytes(content(FILES[2]))
        journal.add(THIRD, hash_bytes(content(FILES[2])))
    assert resumed(draft) == [FIRST, SECOND, THIRD]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda file: os.truncate(file, 30)], ids=["a flipped bit", "gone", "cut short"]
)
def test_a_file_that_is_not_what_was_written_is_told_and_written_again(
    draft: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    damage(draft / "model" / FIRST)
    with caplog.at_level(logging.WARNING):
        assert resumed(draft) == [SECOND]
    assert f"{FIRST}: not what was written there before the merge was stopped; merged again" in caplog.text
    assert files_in(draft) == ["journal.jsonl", f"model/{SECOND}"]


def test_a_file_that_today_would_be_written_otherwise_is_not_used(draft: Path):
    other = bytearray(content(FILES[0]))
    other[20] ^= 1  # In the header.
    (draft / "model" / FIRST).write_bytes(other)
    lines = (draft / "journal.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"path": FIRST, "size": len(other), "sha256": hash_bytes(bytes(other)).sha256})
    (draft / "journal.jsonl").write_text("\n".join(lines) + "\n")
    assert resumed(draft) == [SECOND]


@pytest.mark.parametrize("first_line", [b"", b"{}\n", b'{"key": "other"}\n'])
def test_the_journal_of_another_merge_says_nothing(draft: Path, first_line: bytes):
    lines = (draft / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (draft / "journal.jsonl").write_bytes(first_line + b"".join(lines[1:]))
    assert resumed(draft) == []
    assert resumed(draft, "another key") == []


def test_a_file_is_on_the_disk_before_it_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path, tmp_path / "journal.jsonl", KEY)

    def fail(_: Path) -> None:
        raise OSError("not on the disk")

    monkeypatch.setattr(module, "sync", fail)
    with pytest.raises(OSError, match="not on the disk"):
        journal.add(FIRST, FileDigest("0" * 64, 1))
    assert not (tmp_path / "journal.jsonl").exists() and journal.finished == {}


def test_an_error_leaves_finished_files_only_or_nothing(draft: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), journaled(draft, KEY, FILES) as journal:
        (journal.folder / "half").touch()
        raise KeyboardInterrupt
    assert files_in(draft) == ["journal.jsonl", f"model/{FIRST}", f"model/{SECOND}"]
    (tmp_path / "new").mkdir()
    with pytest.raises(KeyboardInterrupt), journaled(tmp_path / "new", KEY, FILES) as journal:
        (journal.folder / "half").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []


def test_unchanged_files_are_those_with_their_size_and_content(tmp_path: Path):
    for name in ("same", "longer", "other"):
        (tmp_path / name).write_bytes(b"abc" if name != "longer" else b"abcd")
    files = {name: hash_bytes(b"abc") for name in ("same", "longer", "gone")} | {"other": hash_bytes(b"abd")}
    assert find_unchanged(tmp_path, files) == {"same": hash_bytes(b"abc")}
