"""Credentials from Prefect blocks: what they become, who sees them, and what is said of blocks that are no use."""

from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prefect import flow, task
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.utilities.dispatch import get_registry_for_type
from pydantic import BaseModel, SecretStr

from flows.cli import cocktail
from flows.connections import load_access, with_connections
from tasks.errors import RecipeError
from tasks.recipe import Recipe
from tasks.remote.access import HubAccess, S3Access, hub_access, s3_access
from tasks.settings import ConnectionSettings
from tests.flows.conftest import DEMO

pytestmark = [pytest.mark.usefixtures("prefect_server")]


class AwsClientParameters(BaseModel):
    """As in prefect-aws, in the part that is read."""

    endpoint_url: str | None = None


class AwsCredentials(Block):
    """The block type of prefect-aws by its slug and the fields that are read, since that package is an extra."""

    _block_type_slug = "aws-credentials"

    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: str | None = None
    region_name: str | None = None
    aws_client_parameters: AwsClientParameters = AwsClientParameters()


def make_recipe(**connections: str) -> Recipe:
    content: dict[str, Any] = {
        "name": "assistant",
        "model_type": "decoder",
        "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"},
        "connections": connections,
    }
    return Recipe.model_validate(content)


def test_a_secret_block_with_an_object_says_who_we_are_on_s3():
    content = {"access_key_id": "AKIA1", "secret_access_key": "s3cr3t", "region": "eu-west-1", "requester_pays": True}
    Secret(value=content).save("team-s3", overwrite=True)

    s3, hub = load_access(ConnectionSettings(s3="secret/team-s3"))

    assert s3 == S3Access(region="eu-west-1", access_key_id="AKIA1", secret_access_key="s3cr3t", requester_pays=True)
    assert hub is None
    assert "s3cr3t" not in repr(s3)


def test_an_aws_credentials_block_says_who_we_are_on_s3_and_the_environment_how_to_write(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COCKTAIL_S3_KMS_KEY_ID", "key-1")
    monkeypatch.setenv("COCKTAIL_S3_REQUESTER_PAYS", "1")
    AwsCredentials(
        aws_access_key_id="AKIA2",
        aws_secret_access_key=SecretStr("hidden"),
        region_name="us-east-2",
        aws_client_parameters=AwsClientParameters(endpoint_url="https://minio.example:9000"),
    ).save("prod", overwrite=True)

    s3, _ = load_access(ConnectionSettings(s3="aws-credentials/prod"))

    assert s3 == S3Access(
        "https://minio.example:9000", "us-east-2", "AKIA2", "hidden", kms_key_id="key-1", requester_pays=True
    )


def test_a_secret_block_with_text_is_the_token_of_the_hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    Secret(value="hf_abc").save("hub-token", overwrite=True)
    assert load_access(ConnectionSettings(hub="secret/hub-token"))[1] == HubAccess("hf_abc", "https://hub.example")


def test_the_flow_and_its_mapped_tasks_are_who_the_recipe_says_and_nobody_afterwards():
    Secret(value={"access_key_id": "AKIA3"}).save("flow-s3", overwrite=True)
    Secret(value="hf_flow").save("flow-hub", overwrite=True)

    @task
    def ask(_: int) -> tuple[str | None, str | None]:
        return s3_access().access_key_id, hub_access().token

    @flow
    @with_connections
    def run(recipe: Recipe) -> list[Any]:
        return [(s3_access().access_key_id, hub_access().token), *ask.map([1, 2]).result()]

    assert run(make_recipe(s3="secret/flow-s3", hub="secret/flow-hub")) == [("AKIA3", "hf_flow")] * 3
    assert (s3_access().access_key_id, hub_access().token) == (None, None)


def test_a_recipe_that_names_no_blocks_leaves_all_to_the_environment():
    assert load_access(make_recipe().connections) == (None, None)


@pytest.mark.parametrize(
    ("value", "connections", "message"),
    [
        ("text", {"s3": "secret/bad"}, r"connections\.s3: block secret/bad holds no object; its keys are endpoint_url"),
        ({"acess_key": 1}, {"s3": "secret/bad"}, r"block secret/bad has unknown keys acess_key; known are"),
        ({"a": 1}, {"hub": "secret/bad"}, r"connections\.hub: block secret/bad holds no text; it must hold a token"),
    ],
)
def test_a_block_that_holds_something_else_is_refused(value: Any, connections: dict[str, str], message: str):
    Secret(value=value).save("bad", overwrite=True)
    with pytest.raises(RecipeError, match=message):
        load_access(ConnectionSettings(**connections))


def test_a_block_that_is_not_there_is_refused_with_what_to_do():
    with pytest.raises(RecipeError, match=r"connections\.hub: there is no block secret/nobody; make it in the Prefect"):
        load_access(ConnectionSettings(hub="secret/nobody"))


def test_a_block_of_a_type_that_is_not_installed_is_refused_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    AwsCredentials().save("elsewhere", overwrite=True)
    monkeypatch.delitem(get_registry_for_type(Block), "aws-credentials")
    with pytest.raises(RecipeError, match="block aws-credentials/elsewhere is of a type that is not installed; pip"):
        load_access(ConnectionSettings(s3="aws-credentials/elsewhere"))


def test_a_recipe_cannot_hold_a_secret_in_place_of_a_name():
    with pytest.raises(ValueError, match="String should match pattern"):
        ConnectionSettings(hub="hf_AbCdEf")


def test_a_plain_command_is_who_the_recipe_says_too(hub, tmp_path, monkeypatch: pytest.MonkeyPatch):
    Secret(value=hub.token).save("cli-hub", overwrite=True)
    monkeypatch.delenv("HF_TOKEN")
    hub.create_repo("org/base", private=True)
    hub.commit_folder("org/base", DEMO / "models/decoder/base")
    content = {
        "name": "assistant",
        "model_type": "decoder",
        "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"},
    }
    plan = ["plan", str(tmp_path / "recipe.yaml"), "--cache", str(tmp_path / "cache")]

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    refused = CliRunner().invoke(cocktail, plan)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content | {"connections": {"hub": "secret/cli-hub"}}))
    taken = CliRunner().invoke(cocktail, plan)

    assert refused.exit_code == 1 and "it is private and the token at hand may not see it" in refused.output
    assert taken.exit_code == 0, taken.output
