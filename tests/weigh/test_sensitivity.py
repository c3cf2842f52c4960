"""What weights hang on: single examples, the draw of the examples, the temperature. Expected values are by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.records import Score
from tasks.weigh.sensitivity import add_sensitivity
from tasks.weight_records import Trust


def score(name: str, *losses: float) -> Score:
    return Score(name, losses, n_tokens=10, seconds=1.0)


# At temperature 1 the weight of law is 1 / (1 + exp(law - tax)): 0.622459 of the means 2 and 2.5, and without the
# examples in turn 0.437823, 0.679179 and 0.731059.
THREE = [score("law", 1.0, 2.0, 3.0), score("tax", 3.0, 2.0, 2.5)]


def test_ranges_and_influence_are_of_each_example_left_out():
    trust = add_sensitivity(Trust(1.9, ("look twice",)), THREE, temperature=1.0)
    assert trust.leave_one_out["law"] == pytest.approx((0.437823, 0.731059), abs=1e-6)
    assert trust.leave_one_out["tax"] == pytest.approx((0.268941, 0.562177), abs=1e-6)
    assert trust.most_influential == 1
    assert trust.influence == pytest.approx(0.622459 - 0.437823, abs=1e-6)
    low, high = trust.intervals["law"]
    assert low < 0.622459 < high and trust.intervals["tax"] == pytest.approx((1 - high, 1 - low))


def test_one_example_that_decides_is_named_with_what_it_does():
    trust = add_sensitivity(Trust(1.9, ("look twice",)), THREE, temperature=1.0)
    assert trust.warnings == (
        "look twice",
        "one example decides whether law or tax weighs more: without example 1 it is tax (0.562 against 0.438)",
        "one example of 3 moves a weight far: without example 1, law would weigh 0.438, not 0.622",
    )


def test_of_losses_of_batches_batches_are_named():
    scores = [replace(each, unit="batch") for each in THREE]
    trust = add_sensitivity(Trust(1.9), scores, temperature=1.0)
    assert trust.unit == "batch"
    assert trust.warnings == (
        "one batch decides whether law or tax weighs more: without batch 1 it is tax (0.562 against 0.438)",
        "one batch of 3 moves a weight far: without batch 1, law would weigh 0.438, not 0.622",
    )


def test_several_examples_that_each_decide_are_counted():
    # law leads by 0.1 nats in sum; without the first or the second example tax leads.
    scores = [score("law", 1.0, 1.0, 2.0, 1.0), score("tax", 1.5, 1.6, 1.0, 1.0)]
    (warning,) = add_sensitivity(Trust(1.9), scores, temperature=5.0).warnings
    assert warning == (
        "single examples decide whether law or tax weighs more: without any one of 2 of the 4, most clearly example 2, "
        "it is tax"
    )


def test_many_examples_that_agree_have_no_warning():
    generator = np.random.default_rng(0)
    scores = [score(name, *generator.normal(mean, 0.1, 50)) for name, mean in [("law", 1.0), ("tax", 1.5), ("x", 2.0)]]
    trust = add_sensitivity(Trust(2.5), scores, temperature=1.0)
    assert trust.warnings == ()
    assert all(high - low < 0.03 for low, high in trust.intervals.values())


def test_an_open_order_behind_the_best_is_said_with_how_often_it_turns():
    # b leads c by 0.1 nats; it is behind when the second example is drawn both times, which is one draw of four.
    scores = [score("best", 0.0, 0.0), score("c", 3.0, 2.2), score("b", 2.0, 3.0), score("far", 9.0, 9.0)]
    (warning,) = add_sensitivity(Trust(1.3), scores, temperature=1.0).warnings
    share, rest = warning.removeprefix("the order of b and c (").split(" %", 1)
    # 10 000 resamples: the standard error of the share is 0.4 %.
    assert float(share) == pytest.approx(25, abs=1.5)
    assert rest == (
        ") is open: that often they are the other way round when the 2 examples are drawn again; more examples would "
        "tell"
    )


def test_candidates_with_the_same_losses_have_no_order_to_be_open():
    # That they are the same is said by `warn_about_losses`.
    scores = [score("best", 0.0, 0.1, 0.2), score("b", 2.0, 2.1, 2.2), score("c", 2.0, 2.1, 2.2)]
    trust = add_sensitivity(Trust(2.5), scores, temperature=1.0)
    assert trust.warnings == ()
    # Losses differ by the same on every example: nothing moves whichever is left out.
    assert trust.most_influential is None and trust.influence is None


def test_other_temperatures_come_with_their_effective_number_of_models():
    # Means 1 and 2: shares 1 / (1 + exp(-1 / T)) at T = 0.5, 1, 4, 8.
    trust = add_sensitivity(Trust(1.9), [score("law", 1.0), score("tax", 2.0)], temperature=2.0)
    law = {temperature: weights["law"] for temperature, weights in trust.at_temperatures.items()}
    assert law == pytest.approx({"0.5": 0.880797, "1": 0.731059, "4": 0.562177, "8": 0.531209}, abs=1e-6)
    # One over the sum of squares of 0.880797 and 0.119203.
    assert trust.effective_at_temperatures["0.5"] == pytest.approx(1.265802, abs=1e-5)
    assert list(trust.effective_at_temperatures) == list(law)


def test_temperatures_beyond_floats_are_left_out():
    scores = [score("law", 1.0), score("tax", 2.0)]
    assert list(add_sensitivity(Trust(1.0), scores, 5e-324).at_temperatures) == ["9.88131e-324", "1.97626e-323"]
    assert len(add_sensitivity(Trust(1.0), scores, 1e308).at_temperatures) == 2


def test_a_single_example_has_neither_intervals_nor_ranges():
    trust = add_sensitivity(Trust(1.9), [score("law", 1.0), score("tax", 2.0)], temperature=2.0)
    assert (trust.intervals, trust.leave_one_out, trust.most_influential) == ({}, {}, None)


def test_the_share_of_a_target_does_not_move_and_the_others_share_the_rest():
    trust = add_sensitivity(Trust(2.0), [score("news", 9.0, 0.0, 9.0), *THREE], 1.0, target="news", alpha=0.6)
    assert trust.intervals["news"] == trust.leave_one_out["news"] == (0.6, 0.6)
    # 0.4 of what law has without a target
    assert trust.leave_one_out["law"] == pytest.approx((0.4 * 0.437823, 0.4 * 0.731059), abs=1e-6)
    assert trust.at_temperatures["2"]["news"] == 0.6


def test_nothing_is_added_where_losses_decide_nothing():
    trust = Trust(2.0, ("look twice",))
    assert add_sensitivity(trust, [score("law", 1.0, 2.0)], 1.0) == trust
    assert add_sensitivity(trust, THREE, 1.0, target="law", alpha=0.5) == trust
