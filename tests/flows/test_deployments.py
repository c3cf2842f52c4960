"""`deployments/prefect.yaml` deploys to a real server, and a real worker runs what REST asks for, as the UI does."""

import json
import logging

import pytest
from prefect_site import REPOSITORY, Site


@pytest.fixture(scope="module")
def deployed(site: Site) -> Site:
    """The site with all that the file deploys."""
    (site.folder / "deployments").symlink_to(REPOSITORY / "deployments")
    site.run_program("prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    return site


def test_the_nightly_runs_at_four_local_time_one_at_a_time_and_the_other_waits_its_turn(deployed: Site):
    nightly = deployed.get("/deployments/name/refresh/nightly")
    (schedule,) = nightly["schedules"]
    assert schedule["schedule"]["cron"] == "0 4 * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert schedule["active"] is True
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    on_demand = deployed.get("/deployments/name/refresh/on-demand")
    assert on_demand["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_wrong_parameter_is_refused_before_a_run_is_made(deployed: Site):
    recipe = deployed.get("/deployments/name/refresh/on-demand")["parameters"]["recipe"]
    answer = deployed.start("refresh/on-demand", {"recipe": recipe | {"weigh": {"temperature": -1}}})
    assert answer.status_code == 409
    assert "recipe.weigh.temperature" in answer.text


def test_a_run_asked_for_by_rest_releases_a_model(deployed: Site):
    recipe = deployed.get("/deployments/name/refresh/on-demand")["parameters"]["recipe"]
    # What is measured by how many workers is none of this test's business, and takes most of its time.
    recipe["candidates"] = [each for each in recipe["candidates"] if each["name"] in ("base", "clinc")]
    quick = {"weigh": recipe["weigh"] | {"compare": False}, "score": {"devices": ["cpu:0"]}}
    run = deployed.start("refresh/on-demand", {"recipe": recipe | quick}).raise_for_status().json()["id"]
    assert deployed.completed(run)["message"].startswith("released ")
    alias = json.loads((deployed.folder / "releases/assistant/aliases/champion.json").read_text())
    release = deployed.folder / "releases/assistant/versions" / alias["version"]
    assert json.loads((release / "manifest.json").read_text())["flow_run_id"] == run
    # The steps' own lines are at the run, not only what Prefect says of its tasks.
    logs = deployed.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    assert any(line["name"] == "tasks.merge.merge" and line["level"] == logging.INFO for line in logs), logs
    expected = {"plan", "weights", "health", "evaluations", "gate", "card"}
    assert {f"assistant-{what}" for what in expected} <= {each["key"] for each in deployed.artifacts(run)}
