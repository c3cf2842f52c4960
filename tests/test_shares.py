"""Shares that people write sum to 1 in every tensor, and are scaled when a candidate is left out."""

import pytest

from tasks.shares import scale_shares, sum_problem

RISING, FALLING = [0.2, 0.8], [0.8, 0.2]
ATTENTION = [{"filter": "self_attn", "value": 0.9}, {"value": 0.3}]
OTHERS = [{"filter": "self_attn", "value": 0.1}, {"value": 0.7}]


@pytest.mark.parametrize(
    "given",
    [
        {"a": 0.333, "b": 0.333, "c": 0.333},
        {"a": RISING, "b": FALLING},
        # 0.2, 0.5, 0.8 and 0.8, 0.5, 0.2: the longer list has one more point on the same line.
        {"a": RISING, "b": [0.8, 0.5, 0.2]},
        {"a": ATTENTION, "b": OTHERS},
    ],
)
def test_shares_may_differ_from_tensor_to_tensor_if_they_sum_to_1_in_each(given):
    assert sum_problem(given) is None


def test_a_sum_that_is_wrong_somewhere_is_named_with_the_place():
    assert sum_problem({"a": 0.5, "b": 0.4}) == (
        "weigh.weights: a linear merge needs weights that sum to 1; these sum to 0.9"
    )
    # In the middle the first stands at 0.5, the second at 0.6.
    problem = sum_problem({"a": RISING, "b": [0.8, 0.6, 0.2]})
    assert problem is not None and problem.endswith("these sum to 1.1 at depth 0.5")
    problem = sum_problem({"a": ATTENTION, "b": 0.7})
    assert problem is not None
    assert problem.endswith("these sum to 1.6 at depth 0 of tensors with 'self_attn' in their name")


def test_layered_shares_are_scaled_where_what_is_left_is_the_same_everywhere():
    # b and c have 0.8 in every layer; a quarter more makes 1 of it.
    given = {"a": 0.2, "b": [0.2, 0.6], "c": [0.6, 0.2]}
    scaled = scale_shares(given, ["b", "c"])
    assert scaled is not None
    assert scaled["b"] == pytest.approx([0.25, 0.75]) and scaled["c"] == pytest.approx([0.75, 0.25])


def test_shares_that_leave_nothing_or_not_the_same_everywhere_cannot_be_scaled():
    assert scale_shares({"a": 1.0, "b": 0.0}, ["b"]) is None
    assert scale_shares({"a": RISING, "b": FALLING}, ["b"]) is None
