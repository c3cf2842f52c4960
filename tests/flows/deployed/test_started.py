"""A deployment that starts by itself: its clock or an event makes a run, and the worker releases a model."""

import json
from pathlib import Path
from typing import Any

from prefect_site import Site, wait_for

from tests.flows.deployed.conftest import Deploy


def test_the_clock_starts_a_run(site: Site, deploy: Deploy, small: dict[str, Any], releases: Path):
    # A sixth field counts seconds: no test waits for the next minute.
    name = deploy(small, "by-clock", "--cron", "* * * * * */10")

    def started() -> dict[str, Any] | None:
        return next((run for run in site.runs_of(name) if run["state"]["type"] == "RUNNING"), None)

    run = wait_for(started, "the schedule to start a run")
    deployment = site.get(f"/deployments/name/{name}")
    site.post(f"/deployments/{deployment['id']}/pause_deployment", {})
    assert run["auto_scheduled"]
    assert run["created_by"]["type"] == "SCHEDULE"
    assert site.completed(run["id"])["message"].startswith("released ")
    alias = json.loads((releases / "aliases/champion.json").read_text())
    manifest = json.loads((releases / "versions" / alias["version"] / "manifest.json").read_text())
    assert manifest["flow_run_id"] == run["id"]


def test_an_event_starts_a_run_with_its_candidate(
    site: Site, deploy: Deploy, small: dict[str, Any], releases: Path, tmp_path: Path
):
    name = deploy(small, "by-event", "--on-candidate", "--family", "small")
    wordnet = next(each["model"] for each in small["candidates"] if each["name"] == "wordnet")
    payload = {"candidate": "news", "model": wordnet}

    def posted(number: int, family: str) -> dict[str, Any]:
        resource = {"prefect.resource.id": "lm-cocktail.candidate.news", "lm-cocktail.family": family}
        return {
            "id": f"00000000-0000-4000-8000-{number:012}",
            "occurred": "2026-01-01T00:00:00Z",
            "event": "lm-cocktail.candidate.ready",
            "resource": resource,
            "payload": payload,
        }

    site.post("/events", [posted(1, "large"), posted(2, "small")])
    run = wait_for(lambda: site.runs_of(name), "the event to start a run")[0]
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["parameters"]["candidate"] == "news"
    assert site.completed(run["id"])["message"].startswith("released ")
    (manifest,) = releases.glob("versions/*/manifest.json")
    assert "news" in [model["name"] for model in json.loads(manifest.read_text())["models"]]
    assert len(site.runs_of(name)) == 1  # The other family's candidate is none of this deployment's.
