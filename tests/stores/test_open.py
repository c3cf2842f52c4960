"""Destinations: which store is behind each, and which hold no releases."""

import subprocess
import sys
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


def test_a_bucket_is_an_s3_store_and_an_organisation_a_hub_store():
    from tasks.stores.hub.store import HubStore
    from tasks.stores.s3.store import S3Store

    bucket, organisation = open_store("s3://models/releases/"), open_store("hub://org")
    assert isinstance(bucket, S3Store)
    assert bucket.destination == "s3://models/releases"
    assert isinstance(organisation, HubStore)
    assert organisation.destination == "hub://org"


@pytest.mark.parametrize("destination", ["org/model", "hub://org/model", "hub://org/model/folder", "hub://org@main"])
def test_a_repository_is_refused_with_the_organisation_to_write_instead(destination: str):
    with pytest.raises(StoreError, match=f"'{destination}' is a repository on the Hub; write .* hub://org:"):
        open_store(destination)


def test_mlflow_holds_no_files():
    with pytest.raises(StoreError, match=r"'mlflow://localhost:5000' holds no files"):
        open_store("mlflow://localhost:5000")


def test_a_release_is_no_destination():
    with pytest.raises(StoreError, match=r"'release:\./a/b@c' is one release; write the place"):
        open_store("release:./a/b@c")


def test_a_destination_of_no_known_form_is_refused():
    with pytest.raises(StoreError, match=r"destination 'releases': .*is not a reference"):
        open_store("releases")


def test_a_folder_is_opened_without_the_clients_of_s3_and_the_hub():
    code = (
        "import sys, tasks.stores.open as module; module.open_store('./x'); "
        "print({'boto3', 'huggingface_hub'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
