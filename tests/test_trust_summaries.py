from tasks.records import Score
from tasks.trust_summaries import (
    baseline_label,
    effective_sentence,
    influence_sentence,
    range_text,
    scoring_sentences,
)
from tasks.weight_records import Baseline, Trust


def test_a_range_has_as_many_digits_as_are_asked_for_and_may_be_missing():
    assert range_text((0.25, 0.75)) == "0.250 to 0.750"
    assert range_text((0.25, 0.75), digits=1) == "0.2 to 0.8"
    assert range_text(None) == ""


def test_baselines_are_called_what_they_are():
    labels = [baseline_label(Baseline(name, {}, 1.0, 0.1)) for name in ("chosen", "uniform", "law")]
    assert labels == ["the chosen mixture", "the uniform mixture", "law alone"]


def test_an_example_is_named_only_where_one_matters():
    sentence = "Most influential: example 7, without which a weight would differ by 0.12."
    assert influence_sentence(Trust(1.0, most_influential=7, influence=0.1234), digits=2) == sentence
    assert influence_sentence(Trust(1.0)) == ""
    assert "batch 7, without" in influence_sentence(Trust(1.0, most_influential=7, influence=0.1234, unit="batch"))


def test_a_temperature_stands_beside_the_effective_models_where_it_was_found():
    assert effective_sentence(Trust(1.6)) == "Effective number of models: 1.60."
    assert effective_sentence(Trust(1.6, temperature=0.123456)) == (
        "Effective number of models: 1.60 at temperature 0.1235, which was found for it."
    )


def test_what_was_said_of_losses_is_told_once_with_all_candidates_it_was_said_of():
    said = {"base": ("1 of 3 texts is cut",), "law": (), "tax": ("1 of 3 texts is cut", "slow")}
    scores = [Score(name, (1.0,), 10, 1.0, warnings=each) for name, each in said.items()]
    assert scoring_sentences(scores) == ["losses of base, tax: 1 of 3 texts is cut", "losses of tax: slow"]
