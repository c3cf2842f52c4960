"""What a recipe's values may be, and what the form in the UI and editors are told of it."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tasks.arithmetic.catalogue import METHOD_NAMES
from tasks.settings import MergeSettings
from tasks.weigh_settings import WeighSettings


def test_the_schema_lists_all_methods():
    schema = MergeSettings.model_json_schema()
    assert schema["properties"]["method"]["enum"] == list(METHOD_NAMES)
    assert {"linear", "ties", "slerp"} < set(METHOD_NAMES)


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(ValidationError, match=r"there is no method 'tie'; did you mean 'ties'\? methods are .*slerp"):
        MergeSettings.model_validate({"method": "tie"})
    with pytest.raises(ValidationError, match="there is no method 'soup'; methods are"):
        MergeSettings.model_validate({"method": "soup"})


def test_settings_survive_the_way_through_json():
    layered = [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": True}]
    merge = MergeSettings.model_validate({"parameters": {"a": 1, "b": False, "c": [0, 1], "d": layered}})
    again = MergeSettings.model_validate_json(merge.model_dump_json())
    assert again == merge
    assert merge.model_dump(mode="json")["parameters"] == {"a": 1.0, "b": False, "c": [0.0, 1.0], "d": layered}


def test_what_is_no_setting_is_said_once_with_its_key():
    with pytest.raises(ValidationError) as caught:
        WeighSettings.model_validate({"weights": {"a": [0.5, "x"], "b": True}})
    places = {details["loc"]: details["msg"] for details in caught.value.errors()}
    assert list(places) == [("weights", "a"), ("weights", "b")]
    assert places["weights", "a"].endswith("found 'x'") and places["weights", "b"].endswith("found True")


def test_reading_what_a_recipe_can_hold_imports_no_torch():
    code = "import sys, tasks.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
