import json
from pathlib import Path
from typing import Any

import pytest

from tasks.cache import ResultCache
from tasks.errors import PreflightError
from tasks.plan.chats import read_chat_template
from tasks.plan.plan import plan_refresh

CHATS = [{"messages": [{"role": "user", "content": "is it late"}, {"role": "assistant", "content": "yes"}]}]
SECTIONS: dict[str, Any] = {"examples": CHATS, "weigh": {"strategy": "loss"}}


def test_every_candidate_without_a_template_is_named(make_recipe: Any, family: dict[str, Path], cache: ResultCache):
    (family["news"] / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(PreflightError) as caught:
        plan_refresh(make_recipe(**SECTIONS), cache)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["candidate 'base'", "candidate 'law'"]
    assert "the examples are chats (messages), but it has no chat template" in caught.value.problems[0]


def test_a_template_that_is_not_the_first_candidates_is_a_warning(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache
):
    for name, template in {"base": "{{ messages }}", "news": "{{ messages }}", "law": "{{ messages[0] }}"}.items():
        (family[name] / "chat_template.jinja").write_text(template)
    plan = plan_refresh(make_recipe(**SECTIONS), cache)
    assert plan.warnings == (
        "candidate 'law': its chat template is not the first candidate's, so their losses are not of the same texts",
    )


def test_an_unreadable_tokenizer_configuration_is_a_problem(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache
):
    for folder in family.values():
        (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(PreflightError, match="this is no JSON"):
        plan_refresh(make_recipe(**SECTIONS), cache)


def test_a_template_is_a_file_or_stands_in_the_tokenizers_configuration(tmp_path: Path):
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old"}))
    assert read_chat_template(tmp_path) == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert read_chat_template(tmp_path) == "new"
