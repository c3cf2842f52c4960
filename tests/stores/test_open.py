"""Destinations: which can hold releases in this version."""

from pathlib import Path

import pytest

from tasks.errors import StoreError
from tasks.stores.folder import FolderStore
from tasks.stores.open import open_store


def test_a_path_is_a_folder_store(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store(str(tmp_path)).destination == str(tmp_path)
    store = open_store("./releases")
    assert isinstance(store, FolderStore)
    assert store.destination == str(tmp_path / "releases")


@pytest.mark.parametrize("destination", ["s3://models/releases", "hub://org", "org/model", "release:./a/b@c"])
def test_other_places_are_refused_with_what_to_write_instead(destination: str):
    with pytest.raises(StoreError, match=f"{destination}.*releases to folders only: write a path"):
        open_store(destination)


def test_a_destination_of_no_known_form_is_refused():
    with pytest.raises(StoreError, match=r"destination 'releases': .*is not a reference"):
        open_store("releases")
