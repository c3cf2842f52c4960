import json
from pathlib import Path

import pytest

from tasks.cache import ResultCache
from tasks.checkpoint import describe_folder
from tasks.digests import hash_file
from tasks.download.candidate import download_checkpoint
from tasks.errors import InputError
from tasks.records import Checkpoint


@pytest.fixture
def planned(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    return describe_folder("news", str(folder), folder, files)


def test_a_folder_that_did_not_change_is_taken_as_it_is(planned: Checkpoint, tmp_path: Path):
    assert download_checkpoint(planned, ResultCache(tmp_path / "cache")) == planned


def test_all_files_that_changed_since_planning_are_named(planned: Checkpoint, tmp_path: Path):
    (planned.folder / "config.json").unlink()
    (planned.folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError) as caught:
        download_checkpoint(planned, ResultCache(tmp_path / "cache"))
    message = str(caught.value)
    assert message.startswith(f"news: {planned.folder} changed since it was planned:\n")
    assert "config.json: cannot be read: No such file or directory" in message
    # sha256 of the two contents, by sha256sum
    assert "model.safetensors: planned sha256 9a129038d9a0... (7 bytes), found 01db91d06032... (6 bytes)" in message
    assert "run again" in message


def test_a_new_file_of_the_same_length_is_noticed(planned: Checkpoint, tmp_path: Path):
    cache = ResultCache(tmp_path / "cache")
    download_checkpoint(planned, cache)
    (planned.folder / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(InputError, match=r"model\.safetensors: planned sha256"):
        download_checkpoint(planned, cache)


def test_files_that_were_added_later_do_not_matter(planned: Checkpoint, tmp_path: Path):
    (planned.folder / "notes.txt").write_text("new")
    assert download_checkpoint(planned, ResultCache(tmp_path / "cache")) == planned
