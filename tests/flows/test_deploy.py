"""A recipe becomes a deployment on a server, and says what a worker will need."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_site import ask

from flows.cli import cocktail
from flows.deploy import deploy_recipe, local_references
from flows.refresh import refresh
from tasks.errors import CocktailError
from tasks.recipe import Recipe
from tasks.settings import CacheSettings

pytestmark = [pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def pool() -> Iterator[str]:
    name = f"pool-{uuid.uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        yield name
        client.delete_work_pool(name)


def read_deployment(name: str) -> dict[str, Any]:
    return ask("GET", f"{PREFECT_API_URL.value()}/deployments/name/{name}").raise_for_status().json()


def test_a_nightly_runs_by_its_clock_one_at_a_time_from_the_installed_module(recipe: Recipe, pool: str):
    deployed = deploy_recipe(recipe, name="night", pool=pool, cron="0 4 * * *", timezone="Europe/Berlin")
    assert deployed.name == "refresh/night"
    found = read_deployment(deployed.name)
    assert found["id"] == deployed.id
    assert found["entrypoint"] == "flows.refresh.refresh"
    assert not found["pull_steps"]
    (schedule,) = found["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 4 * * *", "Europe/Berlin")
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["job_variables"]["env"]["PREFECT_LOGGING_EXTRA_LOGGERS"] == "tasks,flows"
    # Whoever opens the run form finds the recipe, and what comes back from it is the same recipe.
    assert Recipe.model_validate(found["parameters"]["recipe"]) == recipe


@pytest.mark.parametrize("on_candidate", [False, True])
def test_a_parameter_that_the_flow_does_not_have_is_refused_before_a_run_is_made(
    recipe: Recipe, pool: str, on_candidate: bool
):
    deployed = deploy_recipe(recipe, name="closed", pool=pool, on_candidate=on_candidate)
    # Twice: what is sent when a deployment is made and when it is changed are two requests.
    deployed = deploy_recipe(recipe, name="closed", pool=pool, on_candidate=on_candidate)
    parameters = {"candidate": "news", "model": "org/news"} if on_candidate else {}
    place = f"{PREFECT_API_URL.value()}/deployments/{deployed.id}/create_flow_run"
    answer = ask("POST", place, {"parameters": parameters | {"forse": True}})
    assert (answer.status_code, "'forse' was unexpected" in answer.text) == (409, True)
    assert ask("POST", place, {"parameters": parameters | {"force": True}}).status_code == 201


def test_deploying_again_replaces_the_schedule_and_keeps_the_deployment(recipe: Recipe, pool: str):
    first = deploy_recipe(recipe, name="twice", pool=pool, cron="0 4 * * *")
    second = deploy_recipe(recipe, name="twice", pool=pool, cron="30 5 * * *", cache=CacheSettings(folder="/cache"))
    assert first.id == second.id
    found = read_deployment("refresh/twice")
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["30 5 * * *"]
    assert found["parameters"]["cache"]["folder"] == "/cache"
    without = deploy_recipe(recipe, name="twice", pool=pool)
    assert without.id == first.id
    assert read_deployment("refresh/twice")["schedules"] == []


@pytest.mark.parametrize("cron", ["30 5 * * *", None])
def test_what_a_prefect_yaml_has_deployed_is_replaced_with_its_schedule(recipe: Recipe, pool: str, cron: str | None):
    schedule = Cron("0 4 * * *", timezone="Europe/Berlin", slug="nightly")
    flow: Any = refresh
    flow.to_deployment("of-file", work_pool_name=pool, schedule=schedule).apply()
    deploy_recipe(recipe, name="of-file", pool=pool, cron=cron)
    found = read_deployment("refresh/of-file")
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ([cron] if cron else [])
    assert Recipe.model_validate(found["parameters"]["recipe"]) == recipe


def test_what_the_server_does_not_take_is_told_in_its_words(recipe: Recipe, pool: str, monkeypatch: pytest.MonkeyPatch):
    flow: Any = refresh
    flow.to_deployment("refused", work_pool_name=pool, schedule=Cron("0 4 * * *", slug="nightly")).apply()
    monkeypatch.setattr("flows.deploy._remove_named_schedules", lambda deployment: None)
    with pytest.raises(CocktailError, match=r"deployment refused: the server refuses it: .*provide a slug"):
        deploy_recipe(recipe, name="refused", pool=pool, cron="0 4 * * *")


def test_without_a_schedule_runs_wait_their_turn(recipe: Recipe, pool: str):
    deploy_recipe(recipe, name="by-hand", pool=pool, environment={"HF_HUB_OFFLINE": "1"})
    found = read_deployment("refresh/by-hand")
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert found["job_variables"]["env"]["HF_HUB_OFFLINE"] == "1"


def test_a_deployment_can_wait_for_candidates(recipe: Recipe, pool: str):
    deployed = deploy_recipe(recipe, name="fresh", pool=pool, on_candidate=True)
    assert deployed.name == "candidate-ready/fresh"
    automations = ask("POST", f"{PREFECT_API_URL.value()}/automations/filter", {}).raise_for_status().json()
    (automation,) = [each for each in automations if each["actions"][0].get("deployment_id") == deployed.id]
    assert automation["trigger"]["expect"] == ["lm-cocktail.candidate.ready"]
    assert automation["actions"][0]["parameters"] == {
        "candidate": "{{ event.payload.candidate }}", "model": "{{ event.payload.model }}",
    }  # fmt: skip


def test_a_deployment_can_wait_for_the_candidates_of_one_family(recipe: Recipe, pool: str):
    deployed = deploy_recipe(recipe, name="law", pool=pool, on_candidate=True, family="law")
    automations = ask("POST", f"{PREFECT_API_URL.value()}/automations/filter", {}).raise_for_status().json()
    (automation,) = [each for each in automations if each["actions"][0].get("deployment_id") == deployed.id]
    assert automation["trigger"]["match"] == {"lm-cocktail.family": "law"}


def test_a_pool_that_is_not_there_is_named_with_the_command_that_makes_it(recipe: Recipe):
    with pytest.raises(CocktailError, match="no such work pool; `prefect work-pool create gpus --type process`"):
        deploy_recipe(recipe, name="night", pool="gpus")


def test_what_lies_in_folders_is_listed_and_what_lies_elsewhere_is_not():
    recipe = Recipe.model_validate({
        "name": "a", "model_type": "decoder", "base": "org/base",
        "candidates": [{"name": "one", "model": "/models/one", "adapter": "/models/lora"}, {"name": "two", "model": "s3://m/two"}],
        "examples": "/data/examples.jsonl", "publish": {"to": ["s3://m", "/releases"]},
        "evaluate": [{"name": "t", "kind": "classification", "data": "/data/t.jsonl"}],
    })  # fmt: skip
    assert local_references(recipe) == [
        "/models/one", "/models/lora", "/data/examples.jsonl", "/data/t.jsonl", "/releases",
    ]  # fmt: skip


def test_releases_in_folders_and_programs_are_listed_too():
    recipe = Recipe.model_validate({
        "name": "a", "model_type": "decoder", "base": "release:/releases/base@champion",
        "candidates": [{"name": "one", "model": "release:s3://m/one"}, {"name": "two", "model": "org/two"}],
        "weigh": {"strategy": "uniform"},
        "evaluate": [{"name": "t", "kind": "command", "command": ["/opt/measure", "{model}", "--rows", "/data/rows"]}],
        "gate": {"rules": [{"task": "t", "min_delta": 0, "against": "release:/releases/old@v1"}]},
        "publish": {"to": ["s3://m"], "on_promote": {"command": ["/opt/restart", "now"]}},
    })  # fmt: skip
    assert local_references(recipe) == [
        "/releases/base", "/releases/old", "/opt/measure", "/data/rows", "/opt/restart",
    ]  # fmt: skip


@pytest.fixture
def recipe_file(content: dict[str, Any], recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cocktail, ["deploy", *map(str, arguments)])


def test_the_command_says_where_the_deployment_is_and_what_workers_need(recipe_file: Path, pool: str, tmp_path: Path):
    done = invoke(recipe_file, "--pool", pool, "--cron", "0 4 * * *", "--timezone", "Europe/Berlin")
    assert done.exit_code == 0, done.output
    assert "deployed refresh/assistant" in done.output
    assert str(tmp_path / "releases") in done.output
    assert f"prefect worker start --pool {pool}" in done.output
    told = json.loads(invoke(recipe_file, "--pool", pool, "--name", "other", "--json").stdout)
    assert told["deployment"] == "refresh/other"
    assert told["local"] == local_references(Recipe.model_validate(yaml.safe_load(recipe_file.read_text())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cron", "0 4 * *"], "--cron '0 4 * *': this is no cron schedule"),
        (["--cron", "0 4 * * *", "--timezone", "Europe/Berln"], "--timezone Europe/Berln: there is no such time zone"),
    ],
)
def test_a_schedule_that_cannot_be_is_wrong_usage(
    options: list[str], message: str, recipe_file: Path, pool: str, capfd: pytest.CaptureFixture[str]
):
    done = invoke(recipe_file, "--pool", pool, *options)
    assert done.exit_code == 2
    assert message in done.output


def test_the_cache_is_in_the_folder_that_was_meant_wherever_the_worker_runs(
    recipe_file: Path, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = invoke(recipe_file, "--pool", pool, "--cache", "./cache", "--name", "cached")
    assert done.exit_code == 0, done.output
    assert read_deployment("refresh/cached")["parameters"]["cache"]["folder"] == str(tmp_path / "cache")


def test_a_family_without_candidates_is_wrong_usage(recipe_file: Path):
    done = invoke(recipe_file, "--family", "law")
    assert done.exit_code == 2
    assert "--family says whose candidates start it; give --on-candidate, too" in done.output


def test_what_is_deployed_is_the_recipe_with_the_settings_of_its_environment(
    recipe_file: Path, pool: str, tmp_path: Path
):
    settings = tmp_path / "prod" / "prod.yaml"
    settings.parent.mkdir()
    settings.write_text("name: assistant-prod\npublish: {to: [./live], keep: 30}\n")
    done = invoke(recipe_file, "--pool", pool, "--with", settings, "--json")
    assert done.exit_code == 0, done.output
    deployed = read_deployment("refresh/assistant-prod")["parameters"]["recipe"]
    assert deployed["publish"] == {"to": [str(tmp_path / "prod/live")], "keep": 30}


def test_without_a_server_that_stays_nothing_is_deployed(recipe_file: Path):
    with temporary_settings({PREFECT_API_URL: None}):
        done = invoke(recipe_file)
    assert done.exit_code == 1
    assert "a deployment lives on a Prefect server, and none is set" in done.output


def test_a_recipe_that_publishes_nowhere_is_refused(content: dict[str, Any], recipe_file: Path):
    told = yaml.safe_load(recipe_file.read_text())
    del told["publish"]
    recipe_file.write_text(yaml.safe_dump(told))
    done = invoke(recipe_file)
    assert done.exit_code == 2
    assert "publish: the recipe names no place to release to" in done.output
