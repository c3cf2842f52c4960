"""Expected weights are computed by hand with e^-1 = 0.36788 and e^-2 = 0.13534, or are laws of the softmax."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.weigh.loss import compute_merge_weights, mix_with_target

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
losses = st.dictionaries(names, st.floats(0, 50), min_size=1, max_size=8)
temperatures = st.floats(0.01, 1000)


def test_lower_loss_gets_the_larger_weight():
    merge_weights = compute_merge_weights({"base": 2.0, "law": 1.0}, temperature=1.0)
    # exp(-2) and exp(-1), normalised by hand
    assert merge_weights == pytest.approx({"base": 0.26894, "law": 0.73106}, abs=1e-5)


def test_temperature_five_is_as_flat_as_lm_cocktail_makes_it():
    # softmax(-1/5, -3/5) = 1 / (1 + e^-0.4) = 0.5987 and 0.4013
    assert compute_merge_weights({"a": 1.0, "b": 3.0}, 5.0) == pytest.approx({"a": 0.5987, "b": 0.4013}, abs=1e-4)


def test_huge_losses_neither_overflow_nor_vanish():
    merge_weights = compute_merge_weights({"a": 1e6, "b": 1e6 + 1, "c": 1e308}, temperature=1.0)
    # e^0, e^-1 and nothing
    assert merge_weights == pytest.approx({"a": 0.73106, "b": 0.26894, "c": 0.0}, abs=1e-5)


def test_weights_stand_in_the_order_of_the_losses():
    assert list(compute_merge_weights({"z": 3.0, "a": 1.0, "m": 2.0}, 1.0)) == ["z", "a", "m"]


@given(losses, temperatures)
def test_weights_sum_to_one_and_agree_with_numpy(losses: dict[str, float], temperature: float):
    merge_weights = compute_merge_weights(losses, temperature)
    assert list(merge_weights) == list(losses)
    assert abs(math.fsum(merge_weights.values()) - 1) <= 1e-12
    logits = -numpy.array(list(losses.values())) / temperature
    expected = numpy.exp(logits - numpy.logaddexp.reduce(logits))
    assert list(merge_weights.values()) == pytest.approx(list(expected), rel=1e-9, abs=1e-300)


@given(losses, temperatures)
def test_a_lower_loss_never_gets_a_smaller_weight(losses: dict[str, float], temperature: float):
    merge_weights = compute_merge_weights(losses, temperature)
    by_loss = [merge_weights[name] for name in sorted(losses, key=losses.__getitem__)]
    assert by_loss == sorted(by_loss, reverse=True)


@given(losses, temperatures, st.floats(-20, 20))
def test_a_shift_of_all_losses_changes_nothing(losses: dict[str, float], temperature: float, shift: float):
    shifted = compute_merge_weights({name: loss + shift for name, loss in losses.items()}, temperature)
    # Adding the shift rounds a loss by up to 1e-14, which the lowest temperature multiplies by 100.
    assert shifted == pytest.approx(compute_merge_weights(losses, temperature), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("losses", "temperature", "message"),
    [
        ({}, 1.0, "no losses to weigh"),
        ({"law": math.nan, "base": 1.0, "chat": math.inf}, 1.0, r"must be finite; found law \(nan\), chat \(inf\)"),
        ({"law": 1.0}, 0.0, "positive number of nats, found 0"),
        ({"law": 1.0}, math.nan, "positive number of nats, found nan"),
    ],
)
def test_what_cannot_be_weighed_is_refused(losses: dict[str, float], temperature: float, message: str):
    with pytest.raises(ValueError, match=message):
        compute_merge_weights(losses, temperature)


def test_the_target_gets_alpha_whatever_its_loss_and_the_others_share_the_rest():
    merge_weights = mix_with_target({"base": 2.0, "news": 99.0, "law": 1.0}, "news", alpha=0.6, temperature=1.0)
    # 0.4 x (0.26894, 0.73106)
    assert merge_weights == pytest.approx({"base": 0.107576, "news": 0.6, "law": 0.292424}, abs=1e-6)
    assert list(merge_weights) == ["base", "news", "law"]


@given(losses, temperatures, st.floats(0, 1))
def test_weights_with_a_target_sum_to_one(losses: dict[str, float], temperature: float, alpha: float):
    merge_weights = mix_with_target(losses | {"the target": 1.0}, "the target", alpha, temperature)
    assert abs(math.fsum(merge_weights.values()) - 1) <= 1e-12
    assert merge_weights["the target"] == alpha


@pytest.mark.parametrize(
    ("losses", "alpha", "message"),
    [
        ({"base": 1.0}, 0.5, r"target 'news' is not among the candidates \(base\)"),
        ({"base": 1.0, "news": 1.0}, 1.5, "share from 0 to 1, found 1.5"),
        ({"news": 1.0}, 0.5, "only candidate"),
        ({"news": 1.0, "base": math.inf}, 0.5, r"found base \(inf\)"),
    ],
)
def test_a_target_that_cannot_be_mixed_is_refused(losses: dict[str, float], alpha: float, message: str):
    with pytest.raises(ValueError, match=message):
        mix_with_target(losses, "news", alpha, temperature=1.0)
