"""Merge methods against what mergekit made of the same tensors; see README.md."""

import json
from pathlib import Path
from typing import Any

import pytest
from formulas import make, run
from parity_tensors import SHAPES, make_inputs, summarise

EXPECTED = json.loads(Path(__file__).with_name("merge_expected.json").read_text())
CASES: dict[str, dict[str, Any]] = EXPECTED["cases"]
# Both sum in float32 in an order of their own, some terms of size 1.
ELEMENT = 2e-6


def turn_rows_and_columns(parameters: dict[str, Any]) -> dict[str, Any]:
    """mergekit 0.1.5 takes rows where it documents columns, and the reverse."""
    if parameters.get("nuslerp_flatten", True):
        return parameters
    return parameters | {"nuslerp_row_wise": not parameters.get("nuslerp_row_wise", False)}


@pytest.mark.parametrize("tensor", SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_a_merge_equals_that_of_mergekit(name: str, tensor: str):
    case = CASES[name]
    base, candidates = make_inputs(tensor)
    used = candidates[: len(case["weights"])]
    own = case.get("own", {})
    parameters = turn_rows_and_columns(case.get("parameters", {}))
    of_candidates = [{key: values[index] for key, values in own.items()} for index in range(len(used))]
    formula = make(case["method"], SHAPES[tensor], case["weights"], parameters, of_candidates)
    found = summarise(run(formula, base if case.get("base") else None, used))
    assert found["first"] == pytest.approx(case["expected"][tensor]["first"], abs=ELEMENT)
    assert found["sums"] == pytest.approx(case["expected"][tensor]["sums"], rel=ELEMENT, abs=ELEMENT)
