import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import RecipeError
from tasks.settings import CandidateSettings
from tasks.weigh.given import compute_uniform_weights, take_given_shares, take_given_weights, take_omegas


def candidate(name: str, **fields: object) -> CandidateSettings:
    return CandidateSettings.model_validate({"name": name, "model": f"org/{name}", **fields})


def test_uniform_weights_are_equal_shares():
    assert compute_uniform_weights(["a", "b", "c", "d"]) == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}


def test_uniform_weights_of_nobody_are_refused():
    with pytest.raises(ValueError, match="no candidates"):
        compute_uniform_weights([])


def test_shares_written_in_decimals_are_scaled_to_sum_to_one():
    shares = take_given_shares({"a": 0.333, "b": 0.333, "c": 0.333}, ["a", "b", "c"])
    assert shares == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, abs=1e-15)


def test_shares_follow_the_order_of_the_recipe_not_of_the_list():
    assert list(take_given_shares({"b": 0.5, "a": 0.5}, ["a", "b"])) == ["a", "b"]


def test_the_share_of_one_left_out_goes_to_the_others_in_proportion():
    # 0.6 and 0.2 of what is left, 0.8
    assert take_given_shares({"a": 0.6, "b": 0.2, "c": 0.2}, ["a", "b"]) == pytest.approx({"a": 0.75, "b": 0.25})


def test_negative_shares_extrapolate():
    assert take_given_shares({"expert": 1.5, "base": -0.5}, ["expert", "base"]) == {"expert": 1.5, "base": -0.5}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=9), st.floats(-9e-4, 9e-4))
def test_shares_within_the_tolerance_sum_to_one(numbers: list[float], error: float):
    total = math.fsum(numbers)
    given_shares = {f"m{i}": number / total * (1 + error) for i, number in enumerate(numbers)}
    shares = take_given_shares(given_shares, list(given_shares))
    assert abs(math.fsum(shares.values()) - 1) <= 1e-12


@pytest.mark.parametrize(
    ("weights", "names", "message"),
    [
        ({"a": 0.5, "b": 0.4}, ["a", "b"], "sum to 1; these sum to 0.9"),
        ({"a": 1.0}, ["a", "b", "c"], "no weight for b, c; list it under weigh.weights"),
        ({"a": math.nan, "b": 1.0}, ["a", "b"], r"finite numbers; found a \(nan\)"),
        ({"a": 0.0, "b": 1.0}, ["a"], r"take part \(a\) have 0 of the weight"),
        ({"a": -0.5, "b": 1.5}, ["a"], r"take part \(a\) have -0.5 of the weight"),
    ],
)
def test_shares_that_make_no_average_are_refused(weights: dict[str, float], names: list[str], message: str):
    with pytest.raises(RecipeError, match=message):
        take_given_shares(weights, names)


def test_the_general_model_counts_one_and_skills_their_omega():
    omegas = take_omegas(
        [candidate("chat", role="general"), candidate("code", role="skill", omega=0.57), candidate("law", omega=-0.2)],
        None,
    )
    assert omegas == {"chat": 1.0, "code": 0.57, "law": -0.2}


def test_omegas_may_stand_in_one_list_and_are_not_scaled():
    assert take_omegas([candidate("a"), candidate("b")], {"b": 0.9, "a": 0.8}) == {"a": 0.8, "b": 0.9}


@pytest.mark.parametrize(
    ("candidates", "weights", "message"),
    [
        ([candidate("code", role="skill")], None, "no weight for code; .* write omega beside the candidate"),
        ([candidate("code", omega=0.5)], {"code": 0.5}, "omega of code: weigh.weights says it too"),
        ([candidate("chat", role="general")], {"chat": 0.7}, "candidate 'chat': .* so its weight is 1, found 0.7"),
        ([candidate("chat", role="general", omega=2.0)], None, "so its weight is 1, found 2.0"),
        ([candidate("code")], {"code": math.inf}, r"finite numbers; found code \(inf\)"),
    ],
)
def test_omegas_that_say_nothing_clear_are_refused(
    candidates: list[CandidateSettings], weights: dict[str, float] | None, message: str
):
    with pytest.raises(RecipeError, match=message):
        take_omegas(candidates, weights)


def test_layered_shares_of_one_left_out_go_to_the_others_where_they_are_the_same_everywhere():
    shares = take_given_shares({"a": 0.2, "b": [0.2, 0.6], "c": [0.6, 0.2]}, ["b", "c"])
    assert shares["b"] == pytest.approx([0.25, 0.75]) and shares["c"] == pytest.approx([0.75, 0.25])


def test_layered_shares_that_leave_more_in_one_layer_than_in_another_are_refused():
    with pytest.raises(
        RecipeError, match=r"take part \(b\) have from 0.4 to 0.6, which differs from tensor to tensor, of"
    ):
        take_given_shares({"a": [0.6, 0.4], "b": [0.4, 0.6]}, ["b"])


def test_weights_without_a_sum_rule_are_taken_as_they_are():
    given_weights = {"b": 0.7, "a": [0.1, 2.0], "c": 9.0}
    assert list(take_given_weights(given_weights, ["a", "b"]).items()) == [("a", [0.1, 2.0]), ("b", 0.7)]
    with pytest.raises(RecipeError, match="no weight for d"):
        take_given_weights(given_weights, ["a", "d"])


def test_a_general_model_that_is_not_whole_in_every_layer_is_refused():
    with pytest.raises(RecipeError, match=r"its weight is 1, found \[1.0, 0.5\]"):
        take_omegas([candidate("chat", role="general"), candidate("code")], {"chat": [1.0, 0.5], "code": 0.5})
