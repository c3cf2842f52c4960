"""Settings for all tests."""

import os
import tempfile
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from hub_server import HubServer
    from prefect_site import Site
    from s3_server import S3Server

# Of this process alone; removed when it ends.
_HF_HOME = tempfile.TemporaryDirectory(prefix="hf-home-")

# One thread per process: several test processes share the cores, and thread pools that wait for each other are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The Hub's client reads most of these once, at import. Nothing listens at the endpoint, so that a call that a test
# did not mean fails at once; tests of the Hub set their own. Uploads by xet need a server of its own.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HOME"] = _HF_HOME.name
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HF_TOKEN", None)
# The same for S3: no profile or role of whoever runs the tests is ever used.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull

# A shared machine may be slow at any moment, which says nothing about the code.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


# Servers that take seconds to start: all tests of one run in one of the test processes, which starts it once.
_ONE_PROCESS = {"prefect_server": "prefect", "site": "deployments", "mlflow_server": "mlflow"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests by the server that they need, directly or through another fixture."""
    for item in items:
        groups = [group for fixture, group in _ONE_PROCESS.items() if fixture in getattr(item, "fixturenames", ())]
        if groups and not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(groups[0]))


@pytest.fixture(scope="session")
def s3_server() -> Generator["S3Server"]:
    """S3 on loopback, one for all tests of this process; tests take `s3`."""
    from s3_server import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> "S3Server":
    """An empty S3 without faults, which the environment says how to reach."""
    s3_server.clear()
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def hub_server() -> Generator["HubServer"]:
    """A Hub on loopback, one for all tests of this process; tests take `hub`."""
    from hub_server import HubServer

    with HubServer() as server:
        yield server


@pytest.fixture
def hub(hub_server: "HubServer", monkeypatch: pytest.MonkeyPatch) -> "HubServer":
    """An empty Hub without faults, which the environment says how to reach, with a token that may write."""
    hub_server.clear()
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub_server.token)
    return hub_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """`host:port` of a real MLflow server."""
    from mlflow_server import running_mlflow

    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator["Site"]:
    """A real Prefect server with a worker."""
    from prefect_site import running_site

    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
