from pathlib import Path

import pytest
import torch

from tasks.merge import methods
from tasks.records import Checkpoint

BASE, NEWS, LAW = (Checkpoint(name, name, "", Path(f"/{name}").as_uri(), {}) for name in ("base", "news", "law"))


def combine(blend: methods.Blend, *values: float) -> float:
    return blend.combine([torch.tensor([value]) for value in values], torch.empty(1)).item()


def test_linear_reads_only_candidates_that_count():
    blend = methods.linear([NEWS, LAW, BASE], {"news": 0.25, "law": 0.0, "base": 0.75})
    assert blend.sources == (NEWS, BASE)
    assert combine(blend, 4.0, 8.0) == 0.25 * 4 + 0.75 * 8


def test_linear_needs_a_candidate_that_counts():
    with pytest.raises(ValueError, match="all merge weights are 0"):
        methods.linear([NEWS], {"news": 0.0})


def test_skills_are_added_to_the_base_which_is_read_once():
    blend = methods.task_arithmetic(BASE, [NEWS, LAW], {"news": 0.5, "law": 2.0}, None, scale=0.5)
    assert blend.sources == (BASE, NEWS, LAW)
    # 1 + 0.5 x (0.5 x (3 - 1) + 2 x (5 - 1))
    assert combine(blend, 1.0, 3.0, 5.0) == 5.5


def test_skills_are_added_to_the_general_model():
    blend = methods.task_arithmetic(BASE, [NEWS, LAW], {"news": 1.0, "law": 2.0}, "news", scale=1.0)
    assert blend.sources == (NEWS, BASE, LAW)
    # 10 + 2 x (5 - 1)
    assert combine(blend, 10.0, 1.0, 5.0) == 18.0


@pytest.mark.parametrize("weights, scale", [({"news": 1.0, "law": 0.0}, 1.0), ({"news": 1.0, "law": 1.0}, 0.0)])
def test_without_a_skill_that_counts_only_the_general_model_is_read(weights: dict[str, float], scale: float):
    blend = methods.task_arithmetic(BASE, [NEWS, LAW], weights, "news", scale)
    assert blend.sources == (NEWS,)
    assert combine(blend, 7.0) == 7.0


def test_a_general_model_that_is_no_candidate_is_refused():
    with pytest.raises(ValueError, match="there is no candidate 'chat'; candidates are news, law"):
        methods.task_arithmetic(BASE, [NEWS, LAW], {"news": 1.0, "law": 1.0}, "chat", 1.0)
