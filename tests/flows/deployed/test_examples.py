"""`deployments/examples/`: both pipelines run as their page says, on a server with a worker."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.webhook import Webhook
from prefect_site import REPOSITORY, Site, speaking_to

from tests.flows.deployed.conftest import Deploy

EXAMPLES = REPOSITORY / "deployments/examples"


@pytest.fixture
def told(site: Site) -> Iterator[list[dict[str, Any]]]:
    """What was posted to the address that the Webhook block `told` holds."""
    messages: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with speaking_to(site):
            Webhook(url=f"http://127.0.0.1:{server.server_port}/").save("told", overwrite=True)
        yield messages
        server.shutdown()
        thread.join()


def released_models(releases: Path) -> dict[str, str]:
    (manifest,) = releases.glob("versions/*/manifest.json")
    return {model["name"]: model["model"] for model in json.loads(manifest.read_text())["models"]}


def newest_run(site: Site, flow: str) -> dict[str, Any]:
    # Runs that are scheduled for later nights have a start time, too.
    ended = {"state": {"type": {"any_": ["COMPLETED"]}}}
    wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": ended, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = site.post("/flow_runs/filter", wanted)
    return run


def test_training_and_refresh_in_one_pipeline(
    site: Site, told: list[dict[str, Any]], small: dict[str, Any], releases: Path, tmp_path: Path
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small), encoding="utf-8")
    site.run_program(
        "python", EXAMPLES / "one_pipeline.py", recipe, "--models", tmp_path / "models", "--webhook", "told"
    )
    pipeline = newest_run(site, "train-and-refresh")
    models = released_models(releases)
    assert models["news"] == str(tmp_path / "models" / pipeline["id"])
    (message,) = told
    assert message["text"].startswith("news: Completed: released ")
    nested = newest_run(site, "refresh")
    # A subflow is a task of its parent.
    assert site.get(f"/task_runs/{nested['parent_task_run_id']}")["flow_run_id"] == pipeline["id"]


def test_training_that_hands_over_to_a_deployment(
    site: Site, told: list[dict[str, Any]], small: dict[str, Any], deploy: Deploy, releases: Path, tmp_path: Path
):
    deployment = deploy(small, "handed-over", "--on-candidate", "--family", "handed-over")
    site.run_program(
        "python", EXAMPLES / "across_machines.py", deployment, "--base", small["base"], "--rows", small["examples"],
        "--models", tmp_path / "models", "--webhook", "told",
    )  # fmt: skip
    training = newest_run(site, "train-and-hand-over")
    assert released_models(releases)["news"] == str(tmp_path / "models" / training["id"])
    (message,) = told
    assert message["text"].startswith("news: Completed: released ")
    (run,) = site.runs_of(deployment)
    assert site.get(f"/task_runs/{run['parent_task_run_id']}")["flow_run_id"] == training["id"]
