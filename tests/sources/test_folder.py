from pathlib import Path

import pytest

from tasks.errors import NotFoundError
from tasks.sources.folder import FolderSource
from tasks.sources.source import RemoteFile


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for path in ("config.json", "1_Pooling/config.json", ".cache/x", ".hidden"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"0123456789")
    return folder


def test_files_are_listed_by_path_without_hidden_ones(model: Path):
    source = FolderSource(model)
    assert (source.uri, source.revision) == (model.as_uri(), "")
    assert dict(source.list_files()) == {"1_Pooling/config.json": RemoteFile(10, ""), "config.json": RemoteFile(10, "")}
    assert source.describe("config.json").digest is None
    assert source.find_copy("config.json") is None


def test_a_file_can_be_the_source(model: Path):
    source = FolderSource(model / "config.json")
    assert list(source.list_files()) == ["config.json"]
    assert source.download("config.json", Path("/nowhere"), lambda n_bytes: None) == model / "config.json"


def test_ranges_end_with_the_file(model: Path):
    source = FolderSource(model)
    assert source.read_range("config.json", 2, 3) == b"234"
    assert source.read_range("config.json", 8, 100) == b"89"


def test_nothing_is_copied(model: Path, tmp_path: Path):
    seen: list[int] = []
    found = FolderSource(model).download("config.json", tmp_path / "partial", seen.append)
    assert found == model / "config.json" and seen == [10] and not (tmp_path / "partial").exists()


def test_what_is_not_there_is_named(model: Path):
    source = FolderSource(model)
    with pytest.raises(NotFoundError, match=r"there is no file '../x'; files: 1_Pooling/config.json, config.json"):
        source.read_range("../x", 0, 1)
    with pytest.raises(NotFoundError, match="nothing: there is no such folder or file"):
        FolderSource(model / "nothing").list_files()


def test_a_file_that_is_deleted_after_it_was_listed_is_named(model: Path):
    source = FolderSource(model)
    source.list_files()
    (model / "config.json").unlink()
    with pytest.raises(NotFoundError, match=r"config.json: the file was here a moment ago and is gone"):
        source.read_range("config.json", 0, 1)
