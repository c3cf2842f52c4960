from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tasks.arithmetic.method import Elementwise, Method, Parameter, TensorInputs
from tasks.merge import inputs
from tasks.merge.inputs import Choice, choose, formula_maker, leave_out_zeros
from tasks.tensors import TensorView

DEPTHS = {"w": 0.5}


class Told(Elementwise):
    """Keeps what it was told."""

    def __init__(self, told: TensorInputs):
        self.told = told

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        raise NotImplementedError


PAIR = Method(
    "pair", "Two models.", "nobody", Told,
    parameters=(
        Parameter("t", "merge", 0.5, "Where between them.", low=0, high=1),
        Parameter("turn", "merge", False, "Other way round."),
        Parameter("density", "candidate", 1.0, "Kept share.", low=0),
    ),
    base="needed", n_candidates=(2, 2), weights="unused",
)  # fmt: skip


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "find_method", lambda _: PAIR)


def pick(method: str, weights: Mapping[str, float], names: Sequence[str] = ("news", "law"), **options: Any) -> Choice:
    defaults: dict[str, Any] = {"parameters": {}, "candidate_parameters": {}, "general": None, "seed": 0}
    return choose(method, names, weights, **(defaults | options))


def tell(choice: Choice) -> TensorInputs:
    formula = formula_maker(choice, DEPTHS)(TensorView("w", "F32", (2, 3), Path("x"), 0))
    assert isinstance(formula, Told)
    return formula.told


def test_a_candidate_that_counts_nothing_is_left_out():
    choice = leave_out_zeros(pick("linear", {"news": 0.0, "law": 1.0}), DEPTHS)
    assert choice.candidates == ("law",)


def test_a_linear_merge_needs_a_candidate_that_counts():
    with pytest.raises(ValueError, match="all merge weights are 0; at least one candidate must count"):
        leave_out_zeros(pick("linear", {"news": 0.0, "law": 0.0}), DEPTHS)


def test_the_general_model_is_kept_whatever_its_number():
    choice = pick("task_arithmetic", {"news": 0.0, "law": 0.0}, general="news")
    assert leave_out_zeros(choice, DEPTHS).candidates == ("news",)


def test_without_a_skill_that_counts_all_stay_so_that_no_formula_is_left_without_blocks():
    choice = pick("task_arithmetic", {"news": 0.0, "law": 0.0})
    assert leave_out_zeros(choice, DEPTHS).candidates == ("news", "law")


def test_a_method_that_does_not_say_so_keeps_candidates_of_weight_zero(pair):
    choice = pick("pair", {"news": 0.0, "law": 1.0})
    assert leave_out_zeros(choice, DEPTHS).candidates == ("news", "law")


def test_a_method_without_a_base_has_no_general_model():
    assert pick("linear", {"news": 0.5, "law": 0.5}, general="chat").general is None


def test_a_general_model_that_is_no_candidate_is_refused():
    with pytest.raises(ValueError, match="there is no candidate 'chat'; candidates are news, law"):
        pick("task_arithmetic", {"news": 1.0, "law": 1.0}, general="chat")


def test_a_formula_is_told_numbers_and_names(pair):
    told = tell(
        pick("pair", {}, parameters={"t": 0.25}, candidate_parameters={"law": {"density": 0.5}}, general="law", seed=7)
    )
    assert told == TensorInputs(
        "w", (2, 3), (1.0, 1.0), {"t": 0.25, "turn": False}, ({"density": 1.0}, {"density": 0.5}),
        ("news", "law"), 1, 7,
    )  # fmt: skip


@pytest.mark.parametrize("names", [("news",), ("news", "law", "chat")])
def test_a_method_of_two_models_refuses_any_other_number(pair, names: Sequence[str]):
    with pytest.raises(ValueError, match=f"method pair merges exactly 2 candidates; found {len(names)}: news"):
        pick("pair", {}, names)


@pytest.mark.parametrize("limits, expected", [((3, None), "at least 3"), ((3, 5), "3 to 5")])
def test_how_many_candidates_are_expected_is_told(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int | None], expected: str
):
    method = Method("many", "", "", Told, n_candidates=limits)
    monkeypatch.setattr(inputs, "find_method", lambda _: method)
    with pytest.raises(ValueError, match=f"method many merges {expected} candidates; found 2: news, law"):
        pick("many", {"news": 1.0, "law": 1.0})


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"there is no merge method 'magic'; methods are .*linear"):
        pick("magic", {"news": 1.0, "law": 1.0})


def test_all_parameters_that_do_not_belong_are_told_at_once(pair):
    with pytest.raises(ValueError) as caught:
        pick(
            "pair", {}, parameters={"lambda": 1.0, "density": 0.5},
            candidate_parameters={"law": {"t": 0.5}, "chat": {"density": 0.1}},
        )  # fmt: skip
    assert str(caught.value).split("; ") == [
        "parameters: method pair has no lambda there", "it has t, turn",
        "parameters: density of method pair stands among the parameters of a candidate",
        "parameters of law: t of method pair stands among the parameters of the merge",
        "parameters of chat: there is no such candidate", "candidates are news, law",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"t": 1.5}, "parameters: t must be a finite number from 0 to 1; found 1.5"),
        ({"t": float("nan")}, "t must be a finite number from 0 to 1; found nan"),
        ({"t": True}, "t must be a finite number from 0 to 1; found True"),
        ({"turn": 1.0}, "parameters: turn must be true or false; found 1.0"),
    ],
)
def test_a_number_that_a_parameter_cannot_have_is_refused(pair, parameters: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        tell(pick("pair", {}, parameters=parameters))


def test_a_number_of_a_candidate_is_refused_with_its_name(pair):
    with pytest.raises(ValueError, match="parameters of law: density must be a finite number from 0 to inf; found -1"):
        tell(pick("pair", {}, candidate_parameters={"law": {"density": -1.0}}))


def test_slerp_reads_the_base_only_where_it_is_an_end():
    assert pick("slerp", {"law": 1.0}, ["law"]).reads_base
    assert not pick("slerp", {"news": 1.0, "law": 1.0}).reads_base
    assert pick("nuslerp", {"news": 1.0, "law": 1.0}).reads_base
    assert not pick("linear", {"news": 0.5, "law": 0.5}).reads_base
