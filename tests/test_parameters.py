"""Parameters of a method, in the places that they belong to and with every default written out."""

from typing import Any

import pytest

from tasks.arithmetic.method import Elementwise, Method, Parameter
from tasks.parameters import candidate_parameters, merge_parameters, parameter_problems
from tasks.settings import CandidateSettings, MergeSettings

PAIR = Method(
    "linear", "Two models.", "nobody", lambda _: Elementwise(),  # pyright: ignore[reportArgumentType]
    parameters=(
        Parameter("t", "merge", 0.5, "Where between them.", low=0, high=1),
        Parameter("turn", "merge", False, "Other way round."),
        Parameter("density", "candidate", 1.0, "Kept share.", low=0),
        Parameter("gamma", "candidate", 0.0, "Left out.", high=1),
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.parameters.find_method", lambda _: PAIR)


def merge(**parameters: Any) -> MergeSettings:
    return MergeSettings.model_validate({"parameters": parameters})


def candidate(name: str, **parameters: Any) -> CandidateSettings:
    return CandidateSettings.model_validate({"name": name, "model": "org/x", "parameters": parameters or None})


def problems(settings: MergeSettings, *candidates: CandidateSettings) -> list[str]:
    return list(parameter_problems(settings, candidates))


def test_all_parameters_are_there_with_defaults():
    assert merge_parameters(merge()) == {"t": 0.5, "turn": False}
    assert merge_parameters(merge(t=[0, 1])) == {"t": [0.0, 1.0], "turn": False}


def test_a_candidates_own_parameter_counts_before_that_of_the_merge_and_that_before_the_default():
    found = candidate_parameters(merge(density=0.5), [candidate("a", density=[0.1, 0.9]), candidate("b", gamma=1)])
    assert found == {"a": {"density": [0.1, 0.9], "gamma": 0.0}, "b": {"density": 0.5, "gamma": 1.0}}


def test_what_is_as_the_method_has_it_is_no_problem():
    layered = [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}]
    switch = [{"filter": "mlp", "value": True}, {"value": False}]
    assert problems(merge(t=layered, turn=switch, density=2), candidate("a", gamma=-3)) == []


def test_lambda_at_its_default_stands_in_lock_files_of_the_first_version():
    assert problems(merge(**{"lambda": 1.0})) == []
    assert merge_parameters(merge(**{"lambda": 1.0})) == {"t": 0.5, "turn": False}


@pytest.mark.parametrize(
    ("of_merge", "own", "expected"),
    [
        ({"t": 1.5}, {}, "merge.parameters.t: expected a number from 0 to 1, found 1.5"),
        ({"t": [0, 2, -1]}, {}, "merge.parameters.t: expected a number from 0 to 1, found 2.0, -1.0"),
        ({"t": True}, {}, "merge.parameters.t: expected a number from 0 to 1, found True"),
        ({"density": -1}, {}, "merge.parameters.density: expected a number from 0, found -1.0"),
        ({}, {"gamma": 2}, "candidate 'a': parameters.gamma: expected a number up to 1, found 2.0"),
        ({"turn": 1}, {}, "merge.parameters.turn: expected true or false, found 1.0"),
        (
            {"turn": [0, 1]},
            {},
            "merge.parameters.turn: expected true or false, found a gradient; it is either on or off, by tensor name "
            "if need be",
        ),
        (
            {},
            {"t": 0.5},
            "candidate 'a': parameters.t: it belongs to the whole merge; write it under merge.parameters",
        ),
        (
            {"desnity": 0.5},
            {},
            "merge.parameters.desnity: unknown key 'desnity'; did you mean 'density'? linear has density, gamma, t, "
            "turn",
        ),
        ({"zzz": 1}, {}, "merge.parameters.zzz: unknown key 'zzz'; linear has density, gamma, t, turn"),
        (
            {},
            {"weight": 0.5},
            "candidate 'a': parameters.weight: weights stand under weigh.weights, with strategy: given",
        ),
    ],
)
def test_what_cannot_be_is_named_with_its_place(of_merge: dict[str, Any], own: dict[str, Any], expected: str):
    assert problems(merge(**of_merge), candidate("a", **own)) == [expected]


def test_all_problems_are_found_at_once():
    assert len(problems(merge(t=2, zzz=1), candidate("a", t=1, gamma=2), candidate("b", weight=1))) == 5
