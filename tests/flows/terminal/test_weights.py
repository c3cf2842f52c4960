"""Losses, weights and trust for people: nothing is cut, and every number stands under its name."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from flows.terminal.weights import weights_json, weights_parts, weights_table
from tasks.records import Score
from tasks.weight_records import Baseline, MergeWeights, Trust


def render(part: RenderableType, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, emoji=False).print(part, soft_wrap=isinstance(part, str))
    return stream.getvalue()


def lines_of(weights: MergeWeights, **options: bool) -> list[str]:
    parts = weights_parts(SCORES, weights, **options)
    return [line.strip() for part in parts for line in render(part).splitlines()]


SCORES = [Score("base", (1.0, 3.0), 10, 1.0), Score("law", (0.5, 0.5), 10, 1.0)]
WEIGHTS = MergeWeights("loss", {"base": 0.25, "law": 0.75}, Trust(1.6, ("law weighs much",)))
FULL = replace(
    WEIGHTS,
    trust=Trust(
        1.6,
        ("law weighs much",),
        intervals={"base": (0.1, 0.4), "law": (0.6, 0.9)},
        leave_one_out={"base": (0.2, 0.3), "law": (0.7, 0.8)},
        most_influential=2,
        influence=0.05,
        at_temperatures={"10": {"base": 0.45, "law": 0.55}, "0.5": {"base": 0.01, "law": 0.99}},
        effective_at_temperatures={"10": 1.98, "0.5": 1.02},
        baselines=(Baseline("chosen", {}, 0.4, 0.1), Baseline("law", {}, 0.5, 0.2)),
        changes=("law is new: it weighs 0.750",),
    ),
)


def test_weights_stand_beside_losses_and_their_errors():
    # The mean of 1 and 3 is 2; their standard error is sqrt(2) / sqrt(2) = 1.
    data = weights_json(SCORES, WEIGHTS)
    assert data["losses"] == {"base": 2.0, "law": 0.5} and data["loss_stderr"] == {"base": 1.0, "law": 0.0}
    lines = lines_of(WEIGHTS)
    assert "│ base      │ 2.000 ±1.000 │  0.250 │ █████           │" in lines
    assert lines[-2:] == ["Effective number of models: 1.60.", "warning: law weighs much"]


def test_what_was_said_while_losses_were_measured_stands_before_other_warnings():
    scores = [SCORES[0], replace(SCORES[1], warnings=("1 of 2 texts is cut",))]
    assert weights_json(scores, WEIGHTS)["loss_warnings"] == ["losses of law: 1 of 2 texts is cut"]
    assert weights_parts(scores, WEIGHTS)[-2:] == [
        "warning: losses of law: 1 of 2 texts is cut", "warning: law weighs much",
    ]  # fmt: skip


def test_an_interval_is_a_light_bar_after_a_solid_one_to_its_lower_limit():
    # Of 20 cells 0.1 are 2 and 0.4 are 8; 0.6 are 12 and 0.9 are 18.
    lines = lines_of(FULL)
    assert f"│ base      │ 2.000 ±1.000 │  0.250 │ 0.100 to 0.400 │ {'█' * 2}{'░' * 6}           │" in lines
    assert f"│ law       │ 0.500 ±0.000 │  0.750 │ 0.600 to 0.900 │ {'█' * 12}{'░' * 6} │" in lines


def test_simpler_choices_then_influence_warnings_and_changes_follow_the_weights():
    lines = lines_of(FULL)
    assert "│ the chosen mixture │ 0.400 ±0.100 │" in lines and "│ law alone          │ 0.500 ±0.200 │" in lines
    assert lines[-3:] == [
        "Most influential: example 2, without which a weight would differ by 0.050.",
        "warning: law weighs much",
        "since the live release: law is new: it weighs 0.750",
    ]


def test_losses_on_general_examples_stand_beside_where_there_are_any():
    measured = (Baseline("chosen", {}, 0.4, 0.1, general_loss=2.5), Baseline("law", {}, 0.5, 0.2))
    lines = lines_of(replace(WEIGHTS, trust=Trust(1.6, baselines=measured)))
    assert "│ the chosen mixture │ 0.400 ±0.100 │               2.500 │" in lines
    assert "│ law alone          │ 0.500 ±0.200 │                   - │" in lines


def test_other_temperatures_are_shown_on_demand_from_low_to_high():
    assert not any("temperature" in line for line in lines_of(FULL))
    shown = [line for line in lines_of(FULL, with_temperatures=True) if line.startswith("│ ") and line.count("│") == 5]
    assert shown[-2:] == [
        "│         0.5 │             1.02 │ 0.010 │ 0.990 │",
        "│          10 │             1.98 │ 0.450 │ 0.550 │",
    ]


def test_json_has_all_of_the_trust_report():
    trust = json.loads(json.dumps(weights_json(SCORES, FULL)))["trust"]
    assert trust["intervals"] == {"base": [0.1, 0.4], "law": [0.6, 0.9]}
    assert trust["leave_one_out"]["law"] == [0.7, 0.8] and trust["baselines"][1]["loss"] == 0.5
    assert (trust["most_influential"], trust["influence"]) == (2, 0.05)
    assert trust["effective_at_temperatures"] == {"10": 1.98, "0.5": 1.02}


def test_weights_that_were_given_have_no_losses_and_may_be_negative():
    text = render(weights_table({"law": -0.5, "news": 2.0}, {}))
    assert "loss" not in text
    assert "│ law       │ -0.500 │                      │" in text
    assert f"│ news      │  2.000 │ {'█' * 20} │" in text


@pytest.mark.parametrize("intervals", [{}, {"candidate-" * 8: (0.25, 0.75)}])
def test_long_names_are_folded_not_cut(intervals: dict[str, tuple[float, float]]):
    name = "candidate-" * 8
    text = render(weights_table({name: 1.0}, {name: 0.5}, {}, intervals), 50)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 50
    assert "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")) == name


def test_weights_by_depth_are_marked_and_in_the_json():
    weights = MergeWeights("given", {"law": 0.5}, Trust(1.0), {"law": [0.0, 1.0]})
    assert weights_json([], weights)["by_depth"] == {"law": [0.0, 1.0]}
    assert "by_depth" not in weights_json(SCORES, WEIGHTS)
    assert "their mean is shown" in " ".join(render(weights_parts([], weights)[0]).split())
