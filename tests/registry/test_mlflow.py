"""Releases are registered with a real MLflow server on loopback. Those of S3 and the Hub really lie in a folder."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from manifests import minimal_manifest
from mlflow_server import free_port

from tasks.errors import ReleaseError, StoreError, TransientStoreError
from tasks.records import to_json
from tasks.registry.files import AliasState, encode_json
from tasks.registry.mlflow import check_mlflow, register_release
from tasks.registry.releases import MANIFEST_FILE, Registry
from tasks.stores.folder import FolderStore
from tasks.stores.store import content_of

# One server for all tests here: one worker runs them.

ONE, TWO = "20261120-111111111111", "20261121-222222222222"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_RETRIES": "1", "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0", "TIMEOUT": "10"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(mlflow_server: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"http://{mlflow_server}", f"http://{mlflow_server}")


class Elsewhere(FolderStore):
    """A folder whose files have the URIs of another place: MLflow sees the URIs only."""

    def __init__(self, root: Path, base: str):
        super().__init__(root)
        self.base = base

    def uri(self, path: str) -> str:
        return f"{self.base}/{path}"


Truth = Callable[..., Registry]


@pytest.fixture
def truth(tmp_path: Path, request: pytest.FixtureRequest) -> Truth:
    """A registry with both releases in it; every test has a name of its own, for the server is shared."""

    def make(base: str = "") -> Registry:
        root = tmp_path / "releases"
        registry = Registry(Elsewhere(root, base) if base else FolderStore(root), request.node.name.partition("[")[0])
        for sequence, version in enumerate((ONE, TWO), start=1):
            write_release(registry, version, sequence)
        return registry

    return make


def write_release(registry: Registry, version: str, sequence: int, reason: str = "news: +0.25 over the champion"):
    weights = content_of(f"weights of {version}".encode())
    files = {"model.safetensors": to_json(weights.digest)}
    manifest = minimal_manifest(version, sequence, version[-12:] * 5, files) | {
        "name": registry.name,
        "models": [
            {"name": "pre", "weight": None},
            {"name": "base", "weight": 0.5},
            {"name": "news", "weight": 1 / 3},
        ],
        "gate": {"passed": True, "reasons": [reason, "mmlu: not worse"]},
    }
    contents = {"model.safetensors": weights, MANIFEST_FILE: content_of(encode_json(manifest))}
    registry.store.upload(registry.version_path(version), contents, last=MANIFEST_FILE)


def live(version: str) -> AliasState:
    return AliasState(version, "0" * 64, "2026-11-20T03:00:00+00:00", "tester", "test", (), ())


def versions(client: Any, name: str) -> dict[str, str]:
    """MLflow version to release."""
    return {str(found.version): found.tags["version"] for found in client.search_model_versions(f"name='{name}'")}


def test_a_release_is_registered_with_where_it_lies_and_why_it_was_let_through(
    mlflow_server: str, client: Any, truth: Truth
):
    registry = truth("s3://models/eu west")
    uri = register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    assert uri == f"mlflow://{mlflow_server}/models/{registry.name}/versions/1"
    found = client.get_model_version(registry.name, "1")
    assert found.source == f"s3://models/eu west/{registry.name}/versions/{ONE}"
    assert found.tags == {
        "version": ONE,
        "uri": found.source,
        "sequence": "1",
        "manifest_sha256": registry.manifest_sha256(ONE),
        "model_fingerprint": "111111111111" * 5,
        "weights": "base 0.5, news 0.3333",
    }
    assert found.description == "The gate let it pass:\n- news: +0.25 over the champion\n- mmlu: not worse"
    assert found.status == "READY"


def test_registering_again_makes_no_second_version(mlflow_server: str, client: Any, truth: Truth):
    registry = truth("hub://org")
    first = register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    assert register_release(f"mlflow://{mlflow_server}/", registry, ONE, "champion", live(ONE)) == first
    assert versions(client, registry.name) == {"1": ONE}
    assert client.get_model_version(registry.name, "1").source == f"hub://org/{registry.name}/versions/{ONE}"


def test_the_alias_follows_the_truth_forth_and_back(mlflow_server: str, client: Any, truth: Truth):
    registry = truth("s3://models")
    # What is live is registered too where an earlier night could not do it, and before what is new.
    uri = register_release(f"mlflow://{mlflow_server}", registry, TWO, "champion", live(ONE))
    assert uri.endswith("/versions/2")
    assert versions(client, registry.name) == {"1": ONE, "2": TWO}
    assert client.get_model_version_by_alias(registry.name, "champion").version == "1"
    register_release(f"mlflow://{mlflow_server}", registry, TWO, "champion", live(TWO))
    assert client.get_model_version_by_alias(registry.name, "champion").version == "2"
    # A rollback in the truth; and a hand in MLflow that moved the alias is overruled the same way.
    register_release(f"mlflow://{mlflow_server}", registry, TWO, "champion", live(ONE))
    assert client.get_model_version_by_alias(registry.name, "champion").tags["version"] == ONE
    assert len(versions(client, registry.name)) == 2


def test_a_release_that_waits_for_a_person_is_registered_without_an_alias(
    mlflow_server: str, client: Any, truth: Truth
):
    registry = truth("s3://models")
    register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", None)
    assert client.get_registered_model(registry.name).aliases == {}


def test_a_folder_is_registered_under_a_scheme_that_mlflow_does_not_open(mlflow_server: str, client: Any, truth: Truth):
    from mlflow.exceptions import RestException

    registry = truth()
    register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    found = client.get_model_version(registry.name, "1")
    uri = registry.store.uri(registry.version_path(ONE))
    assert uri.startswith("file:///") and found.tags["uri"] == uri
    assert found.source == uri.replace("file:", "folder:")
    # Why: were this ever accepted, the folder could be registered as it is.
    with pytest.raises(RestException, match="To use a local path as a model version source"):
        client.create_model_version(registry.name, uri)


def test_a_truth_that_moved_is_registered_anew(mlflow_server: str, client: Any, truth: Truth):
    before = truth("s3://old")
    after = Registry(Elsewhere(Path(before.store.destination), "s3://new"), before.name)
    register_release(f"mlflow://{mlflow_server}", before, ONE, "champion", live(ONE))
    assert register_release(f"mlflow://{mlflow_server}", after, ONE, "champion", live(ONE)).endswith("/versions/2")
    found = client.get_model_version_by_alias(before.name, "champion")
    assert found.source == f"s3://new/{before.name}/versions/{ONE}"


def test_a_release_that_was_built_again_is_corrected(mlflow_server: str, client: Any, truth: Truth):
    registry = truth("s3://models")
    register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    registry.store.delete_tree(registry.version_path(ONE))
    write_release(registry, ONE, sequence=3, reason="news: +0.5")
    register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    found = client.get_model_version(registry.name, "1")
    assert (found.tags["sequence"], found.tags["manifest_sha256"]) == ("3", registry.manifest_sha256(ONE))
    assert "+0.5" in found.description
    assert versions(client, registry.name) == {"1": ONE}


def test_of_two_registrations_of_one_release_the_first_counts(mlflow_server: str, client: Any, truth: Truth):
    registry = truth("s3://models")
    source = f"s3://models/{registry.name}/versions/{ONE}"
    client.create_registered_model(registry.name)
    for _ in range(2):
        client.create_model_version(registry.name, source, tags={"version": ONE, "uri": source})
    uri = register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))
    assert uri.endswith("/versions/1")
    assert client.get_model_version_by_alias(registry.name, "champion").version == "1"


def test_runs_that_register_at_once_agree(mlflow_server: str, client: Any, truth: Truth):
    registry = truth("s3://models")

    def register(_: int) -> str:
        return register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))

    with ThreadPoolExecutor(3) as pool:
        uris = list(pool.map(register, range(3)))
    assert {uri.rpartition("/")[2] for uri in uris} == {"1"}
    assert client.get_model_version_by_alias(registry.name, "champion").version == "1"


def test_the_server_of_the_environment_is_used_and_its_password_never_shown(
    mlflow_server: str, client: Any, truth: Truth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    registry = truth("s3://models")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://nightly:pa55@{mlflow_server}/")
    check_mlflow("mlflow://")
    assert register_release("mlflow://", registry, ONE, "champion", live(ONE)).startswith(
        f"mlflow://{mlflow_server}/models/"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://nightly:pa55@127.0.0.1:{free_port()}")
    with pytest.raises(TransientStoreError) as caught:
        check_mlflow("mlflow://")
    assert "pa55" not in str(caught.value) + caplog.text


def test_without_an_address_the_environment_must_name_a_server(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StoreError, match=r"mlflow:// needs MLFLOW_TRACKING_URI, such as https://"):
        check_mlflow("mlflow://")
    for other in ("sqlite:///mlflow.db", "databricks", "./mlruns", "http://"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
        with pytest.raises(StoreError, match="names no server over http or https"):
            check_mlflow("mlflow://")


@pytest.mark.parametrize(
    "address", ["mlflow://https://host", "mlflow://https:host", "mlflow://host:port", "mlflow://h?x"]
)
def test_an_address_of_another_form_is_refused(address: str):
    with pytest.raises(StoreError, match=r"is no address of an MLflow server; write mlflow://host:port"):
        check_mlflow(address)


def test_a_password_in_a_destination_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="holds a user or a password; write mlflow://host:port and set") as caught:
        check_mlflow("mlflow://nightly:pa55@host:5000")
    assert "pa55" not in str(caught.value)


def test_a_server_that_is_down_is_a_fault_that_may_pass(truth: Truth):
    address = f"mlflow://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(TransientStoreError, match=f"{address}: the MLflow server cannot be reached or is broken"):
        check_mlflow(address)
    with pytest.raises(TransientStoreError, match="cannot be reached"):
        register_release(address, truth("s3://models"), ONE, "champion", live(ONE))
    assert time.monotonic() - started < 60


def test_what_mlflow_refuses_is_said_in_its_words(mlflow_server: str, truth: Truth):
    with pytest.raises(StoreError, match=r"MLflow answered INVALID_PARAMETER_VALUE: .*'latest' alias name") as caught:
        register_release(f"mlflow://{mlflow_server}", truth("s3://models"), ONE, "latest", live(ONE))
    assert not isinstance(caught.value, TransientStoreError)


def test_a_damaged_release_stays_an_error_of_the_release(mlflow_server: str, truth: Truth):
    registry = truth("s3://models")
    registry.store.write_bytes(f"{registry.version_path(ONE)}/{MANIFEST_FILE}", b"{}")
    with pytest.raises(ReleaseError, match="the manifest is damaged"):
        register_release(f"mlflow://{mlflow_server}", registry, ONE, "champion", live(ONE))


@pytest.fixture
def answering() -> Generator[Callable[[int, bytes], str]]:
    """Servers that give one answer to everything."""
    running: list[tuple[HTTPServer, threading.Thread]] = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        listener = HTTPServer(("127.0.0.1", 0), Handler)
        running.append((listener, threading.Thread(target=listener.serve_forever, args=(0.02,))))
        running[-1][1].start()
        return f"mlflow://127.0.0.1:{listener.server_port}"

    yield start
    for listener, thread in running:
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>nothing</html>"), (200, b"<html>welcome</html>")])
def test_a_server_of_another_kind_is_a_wrong_address(answering: Any, status: int, body: bytes):
    with pytest.raises(StoreError, match="no MLflow server answers there; look at host, port and path") as caught:
        check_mlflow(answering(status, body))
    assert not isinstance(caught.value, TransientStoreError)


@pytest.mark.parametrize(
    ("status", "body"), [(401, b"You are not authenticated."), (403, json.dumps({"error_code": "PERMISSION_DENIED"}))]
)
def test_an_account_without_rights_is_told_what_to_set(answering: Any, status: int, body: Any):
    address = answering(status, body if isinstance(body, bytes) else body.encode())
    with pytest.raises(StoreError, match=r"does not let us \(.*\); set MLFLOW_TRACKING_USERNAME") as caught:
        check_mlflow(address)
    assert not isinstance(caught.value, TransientStoreError)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_overloaded_or_broken_is_a_fault_that_may_pass(answering: Any, status: int):
    with pytest.raises(TransientStoreError, match="is broken for now"):
        check_mlflow(answering(status, b""))


def test_a_machine_without_mlflow_is_told_what_to_install():
    # None in sys.modules is how Python says that a module cannot be imported.
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from tasks.registry.mlflow import check_mlflow\n"
        "check_mlflow('mlflow://127.0.0.1:9')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MLflow is not installed; pip install 'lm-cocktail-flows[mlflow]'" in run.stderr


def test_the_module_alone_does_not_import_mlflow():
    code = "import sys, tasks.registry.mlflow; sys.exit(any(name.startswith('mlflow') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_patience_is_set_only_where_the_environment_says_nothing(answering: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR")
    check_mlflow(answering(200, b"{}"))
    assert os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"
