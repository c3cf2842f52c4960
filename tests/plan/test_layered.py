"""Settings by depth and by tensor name, held against the tensors of a base."""

from pathlib import Path
from typing import Any

import pytest

from tasks.cache import ResultCache
from tasks.errors import PreflightError
from tasks.plan.layered import layered_problems, tabulate_layered
from tasks.plan.plan import plan_refresh
from tasks.recipe import Recipe
from tasks.tensors import TensorView

NAMES = [
    "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
    *(f"model.layers.{layer}.{part}.weight" for layer in range(9) for part in ("self_attn.q_proj", "mlp.up_proj")),
]  # fmt: skip


def views(*names: str) -> dict[str, TensorView]:
    return {name: TensorView(name, "F32", (2, 2), Path("x"), 0) for name in names}


def recipe(weights: dict[str, Any] | None = None, own: dict[str, Any] | None = None, **merge: Any) -> Recipe:
    candidates = [{"name": "news", "model": "/n", "parameters": own}, {"name": "law", "model": "/l"}]
    weigh = {"strategy": "given", "weights": weights} if weights else {"strategy": "uniform"}
    content = {"name": "x", "model_type": "decoder", "base": "/b", "candidates": candidates, "weigh": weigh}
    return Recipe.model_validate(content | {"merge": merge})


def test_nothing_is_shown_where_nothing_differs_from_tensor_to_tensor():
    assert tabulate_layered(recipe(method="ties", parameters={"density": 0.5}), views(*NAMES)) == {}


def test_a_gradient_is_shown_in_the_embeddings_five_layers_and_the_head():
    # Nine layers: a quarter of the way is layer 2, where a line from 0 to 1 stands at 2 / 8.
    assert tabulate_layered(recipe(method="slerp", parameters={"t": [0, 1]}), views(*NAMES)) == {
        "t": {"embeddings": 0, "layer 0": 0, "layer 2": 0.25, "layer 4": 0.5, "layer 6": 0.75, "layer 8": 1, "head": 1}
    }


def test_filters_have_a_row_each_in_the_places_that_they_decide():
    own = {"density": [{"filter": "self_attn", "value": [0, 1]}, {"filter": "lm_head", "value": 0.9}, {"value": 0.4}]}
    table = tabulate_layered(recipe(method="ties", own=own), views(*NAMES))
    assert list(table) == [
        "density of news (self_attn)", "density of news (lm_head)", "density of news (other tensors)",
    ]  # fmt: skip
    assert table["density of news (self_attn)"]["layer 4"] == 0.5
    assert table["density of news (lm_head)"] == {"head": 0.9}
    assert set(table["density of news (other tensors)"].values()) == {0.4}
    assert table["density of news (other tensors)"].keys() >= {"embeddings", "layer 4", "head"}


def test_of_several_stacks_the_longest_names_the_layers():
    stacks = [f"encoder.block.{layer}.x" for layer in range(5)] + [f"decoder.block.{layer}.x" for layer in range(3)]
    setting = [{"filter": "decoder", "value": [0, 1]}, {"value": [1, 0]}]
    table = tabulate_layered(recipe(method="slerp", parameters={"t": setting}), views(*stacks))
    # Halfway is layer 2 of the encoder and layer 1 of the decoder.
    assert table["t (decoder)"]["layer 2"] == 0.5 == table["t (other tensors)"]["layer 2"]


def test_a_model_of_two_layers_shows_both_once():
    names = ["model.layers.0.w.weight", "model.layers.1.w.weight"]
    table = tabulate_layered(recipe(weights={"news": [0, 1], "law": [1, 0]}), views(*names))
    assert table == {"weight of news": {"layer 0": 0, "layer 1": 1}, "weight of law": {"layer 0": 1, "layer 1": 0}}


def test_a_filter_that_decides_nothing_is_a_problem():
    found = [{"filter": "self_atn", "value": 0}, {"value": 1}]
    assert layered_problems(recipe(method="slerp", parameters={"t": found}), views(*NAMES)) == [
        "t: filter 'self_atn' decides no tensor of the base; names are such as model.layers.0.self_attn.q_proj.weight"
    ]
    hidden = [{"filter": "self", "value": 0}, {"filter": "self_attn", "value": 0}, {"value": 1}]
    (problem,) = layered_problems(recipe(method="slerp", parameters={"t": hidden}), views(*NAMES))
    assert problem.startswith("t: filter 'self_attn' decides no tensor")


def test_shares_that_sum_to_1_for_each_filter_but_not_for_a_tensor_that_both_fit_are_found():
    weights = {
        "news": [{"filter": "self_attn", "value": 0.2}, {"value": 0.6}],
        "law": [{"filter": "q_proj", "value": 0.4}, {"filter": "self_attn", "value": 0.8}, {"value": 0.4}],
    }
    both_named = views(*NAMES, "model.layers.0.self_attn.k_proj.weight")
    assert layered_problems(recipe(weights), both_named) == [
        "weigh.weights: a linear merge needs weights that sum to 1; of 9 tensors they do not, such as "
        "'model.layers.0.self_attn.q_proj.weight' with 0.6"
    ]


def test_integers_decide_nothing_as_they_are_copied():
    counter = TensorView("counter", "I64", (), Path("x"), 0)
    found = [{"filter": "counter", "value": 0}, {"value": 1}]
    (problem,) = layered_problems(recipe(method="slerp", parameters={"t": found}), views(*NAMES) | {"counter": counter})
    assert "'counter' decides no tensor" in problem


def test_a_plan_has_the_table_and_a_preflight_the_problems(make_recipe: Any, cache: ResultCache):
    good = {"strategy": "given", "weights": {"base": [1, 0], "news": [0, 1], "law": 0}}
    assert plan_refresh(make_recipe(weigh=good), cache).layered["weight of news"] == {
        "embeddings": 0, "layer 0": 0, "layer 1": 1, "head": 1,
    }  # fmt: skip
    typo = {"method": "breadcrumbs", "parameters": {"density": [{"filter": "x.y", "value": 0.5}, {"value": 1}]}}
    with pytest.raises(PreflightError, match=r"density: filter 'x\.y' decides no tensor of the base"):
        plan_refresh(make_recipe(merge=typo), cache)
