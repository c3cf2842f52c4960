"""`deployments/prefect.yaml` deploys to a real server, and a real worker runs what REST asks for, as the UI does."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).parent / "prefect")
PATIENCE_SECONDS = 180

pytestmark = pytest.mark.xdist_group("deployments")


@dataclass(frozen=True)
class Site:
    """A Prefect server on loopback, and a folder that stands for the machine on which the worker runs."""

    folder: Path
    api: str
    environment: dict[str, str]

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run(
            [PREFECT, *arguments], cwd=self.folder, env=self.environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        return httpx.get(self.api + path).raise_for_status().json()

    def run(self, deployment: str, parameters: Mapping[str, Any]) -> httpx.Response:
        found = self.get(f"/deployments/name/refresh/{deployment}")
        return httpx.post(f"{self.api}/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "deployments").symlink_to(REPOSITORY / "deployments")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PWD": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
    }
    with ExitStack() as stack:
        site = Site(folder, api, environment)
        stack.enter_context(
            background(site, "server", "server", "start", "--no-services", "--host", "127.0.0.1", "--port", str(port))
        )
        wait_for(lambda: httpx.get(f"{api}/health").is_success, "the server to answer")
        site.prefect("work-pool", "create", "models", "--type", "process")
        site.prefect("--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
        stack.enter_context(background(site, "worker", "worker", "start", "--pool", "models", "--type", "process"))
        yield site


class background:
    """A Prefect process that runs beside the tests and is ended with them."""

    def __init__(self, site: Site, log: str, *arguments: str):
        self._log = (site.folder / f"{log}.log").open("w")
        self._process = subprocess.Popen(
            [PREFECT, *arguments], cwd=site.folder, env=site.environment, stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_for(condition: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}")


def test_the_nightly_runs_at_four_local_time_one_at_a_time_and_the_other_waits_its_turn(site: Site):
    nightly = site.get("/deployments/name/refresh/nightly")
    (schedule,) = nightly["schedules"]
    assert schedule["schedule"]["cron"] == "0 4 * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert schedule["active"] is True
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    on_demand = site.get("/deployments/name/refresh/on-demand")
    assert on_demand["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_wrong_parameter_is_refused_before_a_run_is_made(site: Site):
    recipe = site.get("/deployments/name/refresh/on-demand")["parameters"]["recipe"]
    answer = site.run("on-demand", {"recipe": recipe | {"weigh": {"temperature": -1}}})
    assert answer.status_code == 409
    assert "recipe.weigh.temperature" in answer.text


def test_a_run_asked_for_by_rest_releases_a_model(site: Site):
    answer = site.run("on-demand", {"cache": {"folder": str(site.folder / "cache")}})
    run = answer.raise_for_status().json()["id"]

    def final_state() -> Any:
        state = site.get(f"/flow_runs/{run}")["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    state = wait_for(final_state, "the run to end")
    assert state["type"] == "COMPLETED", state["message"] + (site.folder / "worker.log").read_text()
    assert state["message"].startswith("released ")
    alias = json.loads((site.folder / "releases/assistant/aliases/champion.json").read_text())
    release = site.folder / "releases/assistant/versions" / alias["version"]
    assert json.loads((release / "manifest.json").read_text())["flow_run_id"] == run
    keys = {artifact["key"] for artifact in artifacts_of(site, run)}
    expected = {"plan", "weights", "health", "evaluations", "gate", "card"}
    assert {f"assistant-{what}" for what in expected} <= keys


def artifacts_of(site: Site, run: str) -> list[dict[str, Any]]:
    wanted = {"flow_runs": {"id": {"any_": [run]}}}
    return httpx.post(f"{site.api}/artifacts/filter", json=wanted).raise_for_status().json()
