"""What each kind of method asks of the recipe around it."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.recipe import Recipe

GIVEN = {"strategy": "given", "weights": {"a": 0.4, "b": 0.4}}


def problems(method: str, names: str = "ab", **sections: Any) -> list[str]:
    """What is wrong with a recipe that is whole but for the sections given."""
    content: dict[str, Any] = {
        "name": "x",
        "model_type": "decoder",
        "base": "/base",
        "candidates": [{"name": name, "model": f"/{name}"} for name in names],
        "weigh": {"strategy": "uniform"},
        "merge": {"method": method},
    }
    try:
        Recipe.model_validate(content | sections)
    except ValidationError as error:
        return [line for details in error.errors() for line in details["msg"].removeprefix("Value error, ").split("\n")]
    return []


def test_weights_without_a_sum_rule_may_sum_to_anything():
    assert problems("ties", weigh=GIVEN) == []
    assert problems("linear", weigh=GIVEN) == [
        "weigh.weights: a linear merge needs weights that sum to 1; these sum to 0.8"
    ]
    assert problems("ties", weigh={"strategy": "given"}) == [
        "weigh.weights: strategy given needs one number per candidate"
    ]


@pytest.mark.parametrize("weigh", [{"strategy": "loss"}, {"strategy": "uniform"}])
def test_weights_of_any_strategy_are_the_weights_of_a_method_without_a_sum_rule(weigh: dict[str, Any]):
    assert problems("dare_ties", weigh=weigh, examples=[{"input": "a", "output": "b"}]) == []


def test_weights_by_depth_sum_to_1_in_every_layer_of_a_linear_merge():
    layered = {"a": [0, 1], "b": [1, 0]}
    assert problems("linear", weigh={"strategy": "given", "weights": layered}) == []
    assert problems("linear", weigh={"strategy": "given", "weights": layered | {"b": 0.5}}) == [
        "weigh.weights: a linear merge needs weights that sum to 1; these sum to 0.5 at depth 0, 1.5 at depth 1"
    ]


def test_a_method_without_weights_takes_none():
    assert problems("slerp") == []
    assert problems("slerp", weigh=GIVEN) == [
        "weigh.weights: slerp uses no weights; leave them out",
        "weigh.strategy: slerp uses no weights, so strategy given decides nothing; write strategy: uniform",
    ]


def test_a_base_is_asked_for_where_the_method_reads_it():
    expected = "base: ties reads the model that all candidates were trained from; name it"
    assert problems("ties", base=None) == [expected]
    assert problems("slerp", base=None) == [] == problems("linear", base=None)
    assert problems("slerp", "a", base=None) == [
        "base: slerp merges a single candidate with the base; name it, or give two candidates"
    ]


def test_the_number_of_candidates_is_that_of_the_method():
    assert problems("slerp", "abc") == ["candidates: slerp merges 1 to 2 candidates, found 3: a, b, c"]
    assert problems("nuslerp", "abc") == ["candidates: nuslerp merges 2 candidates, found 3: a, b, c"]
    assert problems("passthrough", "ab") == ["candidates: passthrough merges 1 candidate, found 2: a, b"]
    assert problems("model_stock", "a") == ["candidates: model_stock merges at least 2 candidates, found 1: a"]


@pytest.mark.parametrize("entry", [{"role": "general"}, {"role": "skill"}, {"omega": 0.5}])
def test_general_models_skills_and_omegas_are_for_task_arithmetic(entry: dict[str, Any]):
    candidates = [{"name": "a", "model": "/a"}, {"name": "b", "model": "/b", **entry}]
    assert problems("ties", candidates=candidates) == [
        "candidate 'b': roles general and skill and omega belong to method task_arithmetic"
    ]


def test_a_target_takes_its_share_of_a_merge_by_any_method():
    candidates = [{"name": "a", "model": "/a"}, {"name": "b", "model": "/b", "role": "target"}]
    weigh = {"strategy": "loss", "alpha": 0.5}
    assert problems("ties", candidates=candidates, weigh=weigh, examples=[{"input": "a", "output": "b"}]) == []


def test_all_that_is_wrong_is_said_at_once():
    merge = {"method": "ties", "parameters": {"density": 2, "t": 0.5}}
    candidates = [{"name": "a", "model": "/a", "omega": 1, "parameters": {"normalize": True}}]
    found = problems("ties", base=None, candidates=candidates, weigh={"strategy": "given"}, merge=merge)
    assert [problem.split(":")[0] for problem in found] == [
        "base", "candidate 'a'", "weigh.weights", "merge.parameters.density", "merge.parameters.t", "candidate 'a'",
    ]  # fmt: skip
    assert "t belongs to method slerp; ties has density, lambda, normalize" in found[4]
