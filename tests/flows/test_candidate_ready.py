"""A refresh started by a candidate that became ready."""

import time
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.candidate_ready import announce_candidate, candidate_ready, with_candidate
from tasks.errors import RecipeError
from tasks.recipe import Recipe
from tasks.registry.releases import open_registry
from tasks.settings import CacheSettings
from tests.flows.conftest import DEMO, read

WORDNET = str(DEMO / "models/decoder/wordnet")


def names(recipe: Recipe) -> list[str]:
    return [candidate.name for candidate in recipe.candidates]


def test_a_new_candidate_joins_the_others(recipe: Recipe):
    changed = with_candidate(recipe, "news", WORDNET)
    assert names(changed) == [*names(recipe), "news"]
    assert changed.candidates[-1].model == WORDNET
    assert changed.candidates[:-1] == recipe.candidates


def test_a_known_candidate_takes_the_new_model_and_keeps_what_else_was_said_of_it(content: dict[str, Any]):
    content["candidates"][1] |= {"digest": "sha256:" + "0" * 64, "optional": True}
    recipe = read(content)
    name = recipe.candidates[1].name
    changed = with_candidate(recipe, name, WORDNET)
    assert names(changed) == names(recipe)
    assert changed.candidates[1].model == WORDNET
    assert changed.candidates[1].role == recipe.candidates[1].role
    assert changed.candidates[1].optional
    assert changed.candidates[1].digest is None  # of the old model


def test_a_recipe_with_given_weights_cannot_take_one_more(content: dict[str, Any]):
    shares = {"base": 0.5, "clinc": 0.3, "wordnet": 0.2}
    content["candidates"] = [{key: entry[key] for key in ("name", "model")} for entry in content["candidates"]]
    content["weigh"] = {"strategy": "given", "weights": shares}
    with pytest.raises(RecipeError, match=r"candidate news \(org/news\) does not fit .*no weight for news"):
        with_candidate(read(content), "news", "org/news")


def test_an_adapter_is_not_added_to_a_model_that_it_was_not_trained_on(content: dict[str, Any]):
    content["candidates"].append({"name": "chat", "model": content["base"], "adapter": "org/chat-lora"})
    with pytest.raises(RecipeError, match=r"candidate chat .* does not fit .*with the adapter org/chat-lora"):
        with_candidate(read(content), "chat", WORDNET)


@pytest.mark.usefixtures("prefect_server", "computes_here")
def test_the_run_ends_as_the_refresh_does(content: dict[str, Any], cache: CacheSettings):
    content["candidates"] = [entry for entry in content["candidates"] if entry["name"] != "wordnet"]
    content["gate"] = {"rules": [{"task": "clinc", "min": 1.0}]}
    state = candidate_ready(read(content), "wordnet", WORDNET, cache=cache, return_state=True)
    assert (state.name, state.type.value) == ("Rejected", "COMPLETED")
    assert "clinc: accuracy" in state.message
    assert "wordnet" in state.result()["weights"]
    recipe = read(content)
    assert open_registry(recipe.publish.to[0], recipe.name).versions() == []


@pytest.mark.usefixtures("prefect_server")
def test_what_is_announced_is_what_the_trigger_of_a_deployment_takes():
    @flow
    def training() -> None:
        announce_candidate("news", "org/news@main", family="assistant")

    training()

    [event] = wait_for_events("lm-cocktail.candidate.ready")
    assert event["resource"]["prefect.resource.id"] == "lm-cocktail.candidate.news"
    assert event["resource"]["lm-cocktail.family"] == "assistant"
    assert event["payload"] == {"candidate": "news", "model": "org/news@main"}


def wait_for_events(name: str) -> list[dict[str, Any]]:
    """What the server has got of an event; events travel by themselves, so they are waited for."""
    deadline = time.monotonic() + 120
    asked = {"filter": {"event": {"name": [name]}}}
    while True:
        with get_client(sync_client=True) as client:
            found = client._client.post("/events/filter", json=asked).json()["events"]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)
