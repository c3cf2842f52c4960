"""The run form of the Prefect UI: what it is made of, and that the server checks what it submits."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from flows.candidate_ready import candidate_ready
from flows.recipe import demo_recipe_path, read_recipe
from flows.refresh import refresh
from tasks.recipe import Recipe

PINS = {
    "Recipe": {"base_digest", "examples_sha256"},
    "CandidateSettings": {"digest", "adapter_digest"},
    "GeneralSettings": {"sha256"},
    "WeighSettings": {"found_temperature"},
    "EvaluationTask": {"sha256"},
}
"""What lock files write."""


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """The schema that a deployment of `refresh` gives the form."""
    return parameter_schema(refresh).model_dump_for_openapi()


def sections(form: Mapping[str, Any]) -> dict[str, Any]:
    """The form itself and the recipe's sections; weights by tensor name are written as JSON, with no form."""
    found = {name: each for name, each in form["definitions"].items() if name != "FilteredValue"}
    return {"parameters": form, **found}


def inputs(form: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for section, schema in sections(form).items():
        for key, each in schema["properties"].items():
            yield f"{section}.{key}", each


@pytest.mark.parametrize("flow", [refresh, candidate_ready])
def test_every_input_says_what_it_is(flow: Any):
    assert [
        key for key, each in inputs(parameter_schema(flow).model_dump_for_openapi()) if not each.get("description")
    ] == []


def test_only_what_a_person_knows_has_to_be_filled_in(form: dict[str, Any]):
    required = {section: set(schema.get("required", ())) for section, schema in sections(form).items()}
    assert {section: keys for section, keys in required.items() if keys} == {
        "parameters": {"recipe"},
        "Recipe": {"name", "model_type", "candidates"},
        "CandidateSettings": {"name", "model"},
        "EvaluationTask": {"name", "kind"},
        "GateRule": {"task"},
        "GeneralSettings": {"examples"},
        "PromoteCommand": {"command"},
        "PublishSettings": {"to"},
    }


def test_what_lock_files_write_has_no_input_and_is_still_checked(form: dict[str, Any]):
    shown = {section: set(schema["properties"]) for section, schema in sections(form).items()}
    assert not [(section, key) for section, keys in PINS.items() for key in keys & shown[section]]
    checked = {section: schema.get("patternProperties", {}) for section, schema in sections(form).items()}
    assert {section: {key.strip("^$") for key in keys} for section, keys in checked.items() if keys} == PINS


def test_every_form_of_a_value_has_a_name_in_plain_words(form: dict[str, Any]):
    names = {
        key: [each.get("title", each.get("$ref")) for each in input.get("anyOf", ())] for key, input in inputs(form)
    }
    assert names["Recipe.examples"] == ["file", "rows", "left out"]
    assert names["WeighSettings.temperature"] == ["number", "auto"]
    assert names["WeighSettings.weights"] == ["by name", "left out"]
    assert names["ScoreSettings.devices"] == ["auto", "list"]
    assert names["CandidateSettings.role"] == ["choice", "left out"]
    assert names["parameters.page"] == ["file", "left out"]
    assert [key for key, each in names.items() if None in each] == []


def test_no_value_can_be_two_kinds_of_text_of_which_the_form_would_show_the_first(form: dict[str, Any]):
    kinds = {key: [each.get("type") for each in input.get("anyOf", ())] for key, input in inputs(form)}
    assert [key for key, each in kinds.items() if each.count("string") > 1] == []


def test_rarely_used_switches_stand_last(form: dict[str, Any]):
    properties = form["definitions"]["Recipe"]["properties"]
    ordered = sorted(properties, key=lambda key: properties[key].get("position", 0))
    assert ordered[:4] == ["name", "model_type", "base", "candidates"]
    assert ordered[-3:] == ["allow_unrelated", "allow_drift", "runner"]


MISTAKES: dict[str, Any] = {
    "weigh.temperature": -1,
    "weigh.strategy": "best",
    "weigh.alpha": 1.5,
    "score.batch_tokens": 0,
    "merge.max_shard_size": "5 gigs",
    "merge.method": "tie",
    "gate.rules.0.against": "champ",
    "candidates.0.model": None,
    "candidates.0.digest": 5,
    "candidates.0.role": "main",
    "publish.alias": "my model",
    "evaluate.0.kind": "accuracy",
}


@pytest.mark.parametrize("key", MISTAKES)
def test_a_plain_mistake_is_refused_before_there_is_a_run(form: dict[str, Any], key: str):
    wrong = submitted()
    place, *parents = reversed(key.split("."))
    section: Any = wrong["recipe"]
    for parent in reversed(parents):
        section = section[int(parent)] if isinstance(section, list) else section.setdefault(parent, {})
    section[place] = MISTAKES[key]
    found = [".".join(map(str, error.absolute_path)) for error in validate(wrong, form)]
    # Of a key that may be left out with all that is in it, the server names the key.
    assert found in ([f"recipe.{key}"], [f"recipe.{key.split('.')[0]}"])


def test_a_form_that_is_submitted_unchanged_is_the_same_recipe(form: dict[str, Any]):
    assert validate(submitted(), form) == []
    again = Recipe.model_validate(json.loads(json.dumps(submitted()["recipe"])))
    assert again == read_recipe(demo_recipe_path("decoder"))


def test_a_form_with_all_defaults_filled_in_and_pins_beside_them_is_taken(form: dict[str, Any]):
    recipe = read_recipe(demo_recipe_path("decoder"))
    pinned = recipe.candidates[0].model_copy(update={"digest": "sha256:" + "0" * 64})
    recipe = recipe.model_copy(update={"candidates": [pinned, *recipe.candidates[1:]], "base_digest": "sha256:1"})
    filled = recipe.model_dump(mode="json", by_alias=True)
    assert validate({"recipe": filled}, form) == []
    assert Recipe.model_validate(filled) == recipe


def submitted() -> dict[str, Any]:
    """What the form holds of a deployment of the demo's recipe, as `cocktail deploy` writes it."""
    recipe = read_recipe(demo_recipe_path("decoder"))
    return {"recipe": recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
