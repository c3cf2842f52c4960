"""Evaluations side by side."""

from tasks.records import Evaluation
from tasks.summaries import summarise_evaluations


def evaluation(task: str, model: str, *values: float) -> Evaluation:
    return Evaluation(task, model, "accuracy", True, values, "d", 0.0)


def test_a_row_per_task_has_every_model_in_its_place():
    rows = summarise_evaluations(
        [
            evaluation("a", "champion", 0.0, 1.0),
            evaluation("a", "merged", 1.0, 1.0),
            evaluation("b", "merged", 0.0),
            evaluation("a", "law", 0.0, 0.0),
            evaluation("a", "release:/r/demo@v1", 1.0, 0.0),
        ]
    )
    assert rows == [
        {
            "task": "a", "metric": "accuracy", "higher_is_better": True, "n": 2,
            "merged": 1.0, "champion": 0.5, "base": None,
            "candidates": {"law": 0.0}, "anchors": {"release:/r/demo@v1": 0.5}, "stderr": 0.0,
        },
        {
            "task": "b", "metric": "accuracy", "higher_is_better": True, "n": 1,
            "merged": 0.0, "champion": None, "base": None, "candidates": {}, "anchors": {}, "stderr": 0.0,
        },
    ]  # fmt: skip


def test_without_a_merged_model_there_is_no_standard_error_of_it():
    assert summarise_evaluations([evaluation("a", "base", 1.0, 0.0)])[0]["stderr"] is None
