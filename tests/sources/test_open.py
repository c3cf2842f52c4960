import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from s3_server import S3Server

from tasks.errors import NotFoundError, StoreError
from tasks.sources.open import open_source


def test_a_path_is_a_folder(tmp_path: Path):
    assert open_source(str(tmp_path)).uri == tmp_path.as_uri()


def test_a_name_with_a_slash_is_a_repository_of_models_or_data(hub: HubServer):
    for kind in ("model", "dataset"):
        hub.create_repo("org/name", kind)
    commit = hub.commit("org/name", {"config.json": b"{}", "news/a.jsonl": b""})
    rows = hub.commit("org/name", {"rows.jsonl": b"{}\n"}, repo_type="dataset")
    assert open_source("org/name").uri == f"hub://org/name@{commit}"
    assert open_source("hub://org/name@main").uri == f"hub://org/name@{commit}"
    assert open_source("org/name", kind="data").uri == f"hub://org/name@{rows}"
    inside = open_source(f"hub://org/name/news@{commit}")
    assert inside.uri == f"hub://org/name/news@{commit}"
    assert list(inside.list_files()) == ["a.jsonl"]
    assert open_source(inside.uri).uri == inside.uri
    with pytest.raises(NotFoundError, match="org/other"):
        open_source("org/other")


def test_an_s3_address_is_a_prefix(s3: S3Server):
    assert open_source("s3://models/base/").uri == "s3://models/base"
    assert not s3.requests


@pytest.mark.parametrize("text", ["release:/models/news@champion", "mlflow://news@champion", "hub://org"])
def test_what_is_no_place_of_files_is_refused(text: str):
    with pytest.raises(StoreError, match="is no place that files can be read from"):
        open_source(text)


def test_what_is_no_reference_is_refused():
    with pytest.raises(StoreError, match="'news' is not a reference"):
        open_source("news")


def test_neither_client_is_imported_for_a_folder(tmp_path: Path):
    program = (
        "import sys; from tasks.sources.open import open_source; import tasks.sources.fetch, tasks.sources.pickles; "
        "open_source(sys.argv[1]).list_files(); print({'boto3', 'huggingface_hub', 'torch'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
