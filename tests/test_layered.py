"""A setting by depth or by tensor name comes to the number that mergekit's rules say, or is refused."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.layered import (
    distinct_places,
    map_numbers,
    mean_over_depth,
    numbers_in,
    read_setting,
    read_weight,
    resolve,
)

FILTERED = [{"filter": "self_attn", "value": [0.0, 0.5, 0.25]}, {"filter": "mlp", "value": 1}, {"value": 0.5}]


@pytest.mark.parametrize(
    ("gradient", "depth", "expected"),
    [
        # Three points stand at 0, 1/2 and 1; between them the line is straight.
        ([0.0, 0.5, 0.25], 0.0, 0.0),
        ([0.0, 0.5, 0.25], 0.25, 0.25),
        ([0.0, 0.5, 0.25], 0.5, 0.5),
        ([0.0, 0.5, 0.25], 0.75, 0.375),
        ([0.0, 0.5, 0.25], 1.0, 0.25),
        ([0.0, 1.0], 0.3, 0.3),
        ([0.7], 0.0, 0.7),
        ([0.7], 1.0, 0.7),
    ],
)
def test_a_gradient_runs_straight_between_its_numbers(gradient: list[float], depth: float, expected: float):
    assert resolve(read_setting(gradient), "any", depth) == pytest.approx(expected, abs=1e-15)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6), st.floats(0, 1))
def test_a_gradient_stays_between_its_least_and_its_greatest_number(gradient: list[float], depth: float):
    assert min(gradient) - 1e-9 <= resolve(gradient, "any", depth) <= max(gradient) + 1e-9


def test_the_first_filter_that_is_part_of_the_name_has_the_value():
    setting = read_setting(FILTERED)
    assert resolve(setting, "model.layers.2.self_attn.q_proj.weight", 0.5) == 0.5
    assert resolve(setting, "model.layers.2.mlp.up_proj.weight", 0.5) == 1.0
    assert resolve(setting, "lm_head.weight", 1.0) == 0.5
    # Both fit; the first counts.
    assert resolve(setting, "self_attn.mlp", 0.0) == 0.0


@pytest.mark.parametrize("last", [{"value": 3}, {"filter": "*", "value": 3}, {"filter": None, "value": 3}])
def test_an_entry_without_filter_or_with_a_star_fits_every_tensor(last: dict[str, Any]):
    assert resolve(read_setting([{"filter": "x", "value": 1}, last]), "norm", 0.0) == 3.0


def test_numbers_and_switches_are_the_same_everywhere():
    assert resolve(0.5, "any", 0.3) == 0.5
    assert resolve(True, "any", 0.3) is True
    assert resolve(read_setting([{"filter": "norm", "value": False}, {"value": True}]), "a.norm", 0) is False


def test_whole_numbers_and_numbers_in_quotes_are_read_as_floats():
    assert repr(read_setting(1)) == "1.0"
    assert repr(read_setting([0, 1])) == "[0.0, 1.0]"
    # YAML takes 1e-3 for text.
    assert read_setting("1e-3") == 0.001
    assert read_setting(True) is True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"expected a number, a list of numbers \(a gradient .*\) or a list of \{filter, value\}; found None"),
        ("much", "found 'much'"),
        (math.nan, "found nan"),
        ([0.1, math.inf], "found inf"),
        ([], r"found \[\]"),
        ([0.1, "x"], "found 'x'"),
        ([True, 0.5], r"found \[True, 0.5\]"),
        ({"filter": "x", "value": 1}, "found {'filter': 'x', 'value': 1}"),
        ([{"value": 1}, 2], "expected a list of {filter, value}, .*; found 2 in it"),
        ([{"filter": "x"}], "found an entry with the keys filter$"),
        ([{}], "found an entry with the keys none$"),
        ([{"fitler": "x", "value": 1}], "found an entry with the keys fitler, value"),
        ([{"filter": 3, "value": 1}], "expected a part of tensor names as filter, found 3"),
        ([{"value": []}], r"found \[\]"),
        ([{"value": [{"value": 1}]}], "found {'value': 1}"),
        ([{"filter": "x", "value": 1}], "end the list with an entry without filter, found filter 'x' there"),
        ([{"value": 1}, {"filter": "x", "value": 1}, {"value": 1}], "entries after one without filter are never reach"),
    ],
)
def test_what_is_no_setting_is_refused_with_what_was_found(value: object, message: str):
    with pytest.raises(ValueError, match=message):
        read_setting(value)


@pytest.mark.parametrize("value", [True, [{"filter": "x", "value": False}, {"value": 1.0}]])
def test_a_weight_is_never_true_or_false(value: object):
    with pytest.raises(ValueError, match="expected a number"):
        read_weight(value)


def test_a_setting_that_was_not_read_and_fits_no_tensor_is_refused():
    with pytest.raises(ValueError, match="fits tensor 'norm'; end the list with an entry without filter"):
        resolve([{"filter": "x", "value": 1.0}], "norm", 0.0)


def test_the_mean_over_depth_is_the_area_under_the_line():
    # Trapezes of 0 to 0.5 and 0.5 to 0.25, each half of the depth: (0.25 + 0.375) / 2.
    assert mean_over_depth([0.0, 0.5, 0.25]) == pytest.approx(0.3125)
    assert mean_over_depth([0.7]) == 0.7
    assert mean_over_depth(2.0) == 2.0
    # Of filters: what all other tensors take.
    assert mean_over_depth(read_setting(FILTERED)) == 0.5


def test_changing_every_number_keeps_the_form():
    changed = map_numbers(read_setting(FILTERED), lambda number: number / 2)
    assert changed == [
        {"filter": "self_attn", "value": [0.0, 0.25, 0.125]}, {"filter": "mlp", "value": 0.5}, {"value": 0.25},
    ]  # fmt: skip
    assert list(numbers_in(changed)) == [0.0, 0.25, 0.125, 0.5, 0.25]


def test_sums_are_looked_at_in_all_points_of_all_gradients_and_for_every_filter():
    places = distinct_places([[0.0, 1.0], [0.0, 0.5, 1.0], read_setting([{"filter": "mlp", "value": 1}, {"value": 0}])])
    assert places == [("", 0.0), ("", 0.5), ("", 1.0), ("mlp", 0.0), ("mlp", 0.5), ("mlp", 1.0)]
    assert distinct_places([0.3, 0.7]) == [("", 0.0)]


def test_of_filters_that_only_some_settings_have_nothing_is_known_without_names():
    part, whole = (
        [{"filter": "q_proj", "value": 1}, {"value": 0}],
        [{"filter": "attn.q_proj", "value": 0}, {"value": 1}],
    )
    assert distinct_places([read_setting(part), read_setting(whole)]) == [("", 0.0)]
