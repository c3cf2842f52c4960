"""What each strategy asks of the recipe around it."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.recipe import Recipe

ROWS = [{"input": "a", "output": "b"}]
GENERAL = {"examples": [{"input": "c", "output": "d"}]}
TARGET = [{"name": "a", "model": "/a"}, {"name": "b", "model": "/b", "role": "target"}]


def problems(
    strategy: str, method: str = "linear", candidates: Any = None, merge: Any = None, **keys: Any
) -> list[str]:
    """What is wrong with a recipe whose section `weigh` has these keys."""
    content: dict[str, Any] = {
        "name": "x",
        "model_type": "decoder",
        "base": "/base",
        "candidates": candidates or [{"name": name, "model": f"/{name}"} for name in "ab"],
        "examples": ROWS,
        "weigh": {"strategy": strategy, **keys},
        "merge": {"method": method, **(merge or {})},
    }
    try:
        Recipe.model_validate(content)
    except ValidationError as error:
        return [line for details in error.errors() for line in details["msg"].removeprefix("Value error, ").split("\n")]
    return []


@pytest.mark.parametrize(
    ("strategy", "method", "keys"),
    [
        ("sweep", "linear", {"grid": [0, 0.5, 1], "general": GENERAL}),
        ("sweep", "task_arithmetic", {"grid": [0, 1.5]}),
        ("greedy", "linear", {"general": GENERAL}),
        ("search", "task_arithmetic", {"l1": 0, "bounds": [0, 1], "n_mixtures": 5, "general": GENERAL}),
        ("loss", "linear", {"temperature": "auto", "effective_models": 1.5, "found_temperature": 0.3}),
    ],
)
def test_a_strategy_takes_its_own_keys(strategy: str, method: str, keys: dict[str, Any]):
    candidates = TARGET if (strategy, method) == ("sweep", "linear") else None
    assert problems(strategy, method, candidates, **keys) == []


@pytest.mark.parametrize("strategy", ["given", "uniform", "loss", "greedy"])
@pytest.mark.parametrize(
    ("key", "value", "owners"),
    [
        ("grid", [0.5], "sweep"),
        ("l1", 0.1, "search"),
        ("bounds", [0, 1], "search"),
        ("n_mixtures", 9, "search"),
    ],
)
def test_keys_of_another_strategy_are_errors(strategy: str, key: str, value: Any, owners: str):
    given = {"weights": {"a": 0.5, "b": 0.5}} if strategy == "given" else {}
    expected = f"weigh.{key}: strategy {strategy} has no {key}; leave it out or use {owners}"
    assert problems(strategy, **{key: value}, **given) == [expected]


@pytest.mark.parametrize(("key", "value"), [("temperature", 1.0), ("effective_models", 2), ("found_temperature", 2.0)])
def test_temperatures_are_for_losses(key: str, value: float):
    expected = f"weigh.{key}: strategy uniform has no {key}; leave it out or use loss"
    assert problems("uniform", **{key: value}) == [expected]


def test_general_examples_are_for_strategies_that_try_mixtures():
    expected = "weigh.general: strategy loss has no general; leave it out or use sweep or greedy or search"
    assert problems("loss", general=GENERAL) == [expected]


def test_keys_at_their_defaults_may_stand_with_any_strategy():
    # Lock files and the form in the UI write all of them.
    assert problems("uniform", temperature=5.0, l1=0.05, bounds=[-1.5, 1.5], n_mixtures=60, compare=True) == []


def test_a_temperature_is_looked_for_only_with_a_goal():
    assert problems("loss", temperature="auto") == [
        "weigh.effective_models: temperature auto looks for this number; say as how many models to count"
    ]
    assert problems("loss", effective_models=2, found_temperature=1.0) == [
        "weigh.effective_models: it is for temperature: auto, found temperature 5.0",
        "weigh.found_temperature: it is for temperature: auto, found temperature 5.0",
    ]


@pytest.mark.parametrize(("wanted", "alpha"), [(1, None), (2, None), (3.5, None), (1.9, 0.5), (2, 0.5), (3, 0.5)])
def test_a_number_of_models_that_no_temperature_gives_is_refused_before_anything_is_scored(
    wanted: float, alpha: float | None
):
    # By hand: one half and two quarters count as 1 / (1/4 + 2/16) = 8/3 models, two halves as 2.
    most, beside = (2, "") if alpha is None else (8 / 3, " beside a target with alpha 0.5")
    candidates = [*TARGET, {"name": "c", "model": "/c"}] if alpha else None
    assert problems("loss", candidates=candidates, temperature="auto", effective_models=wanted, alpha=alpha) == [
        f"weigh.effective_models: 2 candidates{beside} count as more than {2 if alpha else 1} and fewer than "
        f"{most:.4g} models, whatever the temperature; found {wanted:g}"
    ]
    if alpha:
        assert problems("loss", candidates=candidates, temperature="auto", effective_models=2.5, alpha=alpha) == []


@pytest.mark.parametrize(
    ("strategy", "method", "message"),
    [
        ("sweep", "ties", "weigh.strategy: sweep is for method linear or task_arithmetic, found ties"),
        ("greedy", "task_arithmetic", "weigh.strategy: greedy is for method linear, found task_arithmetic"),
        (
            "search",
            "linear",
            "weigh.strategy: search is for method task_arithmetic, found linear; a linear merge with the base is one: "
            "omega stands for the share",
        ),
        (
            "search",
            "slerp",
            "weigh.strategy: slerp uses no weights, so strategy search decides nothing; write strategy: uniform",
        ),
    ],
)
def test_mixtures_in_memory_are_of_methods_that_a_strategy_knows(strategy: str, method: str, message: str):
    assert problems(strategy, method) == [message]


def test_models_are_mixed_in_memory_as_a_whole_and_row_by_row():
    assert problems("sweep", candidates=TARGET, merge={"embeddings": "union"}) == [
        "merge.embeddings: strategy sweep mixes in memory models of one vocabulary, not by token; leave embeddings "
        "out, or use strategy loss"
    ]
    assert problems("sweep", "task_arithmetic", merge={"parameters": {"lambda": [0, 1]}}) == [
        "merge.parameters.lambda: strategy sweep mixes with one lambda for the whole model"
    ]


def test_mixtures_are_made_on_single_devices():
    content = {
        "name": "x", "model_type": "decoder", "examples": ROWS, "candidates": TARGET,
        "score": {"devices": ["cuda:0", "cuda:1+cuda:2"]},
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"score\.devices: strategy sweep .* found cuda:1\+cuda:2; name single"):
        Recipe.model_validate({**content, "weigh": {"strategy": "sweep"}})
    assert Recipe.model_validate({**content, "weigh": {"strategy": "loss", "alpha": 0.5}})


def test_a_linear_sweep_needs_a_target_and_others_and_shares():
    assert problems("sweep") == [
        "weigh.strategy: sweep varies the share of the candidate with role: target, and no candidate has it"
    ]
    assert problems("sweep", candidates=TARGET[1:]) == [
        "candidates: the target alone cannot be mixed; add the base model or other candidates"
    ]
    assert problems("sweep", candidates=TARGET, grid=[-0.1, 0.5, 2]) == [
        "weigh.grid: shares of the target are from 0 to 1, found -0.1, 2"
    ]


@pytest.mark.parametrize("bounds", [[0.1, 1], [-1, -0.5], [0, 0], [1, -1]])
def test_a_search_can_always_leave_a_skill_out(bounds: list[float]):
    (problem,) = problems("search", "task_arithmetic", bounds=bounds)
    assert problem.startswith("weigh.bounds: expected the least and the largest omega with 0 between them, found ")


def test_a_search_finds_the_omegas_itself():
    written = [{"name": name, "model": f"/{name}", "omega": 0.5} for name in "ab"]
    assert problems("search", "task_arithmetic", written) == [
        "omega of a, b: strategy search finds it; take one of the two out"
    ]
    assert problems("sweep", "task_arithmetic", written) == []


@pytest.mark.parametrize("strategy", ["loss", "greedy"])
def test_strategies_that_measure_need_examples(strategy: str):
    content = {"name": "x", "model_type": "decoder", "candidates": TARGET[:1], "weigh": {"strategy": strategy}}
    with pytest.raises(ValidationError, match=f"examples: strategy {strategy} measures the candidates on examples"):
        Recipe.model_validate(content)
