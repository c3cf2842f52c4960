"""The model card: what the Hub reads in its header, what people read below it."""

import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tasks.publish.card import render_card
from tasks.publish.lineage import read_lineage
from tasks.recipe import Recipe
from tasks.records import Checkpoint, RefreshReport


def card_of(report: RefreshReport) -> str:
    recipe = Recipe.model_validate(report.recipe)
    return render_card(recipe, report, read_lineage(recipe, report))


def from_hub(report: RefreshReport) -> RefreshReport:
    """The same models, as if they had come from the Hub."""

    def move(checkpoint: Checkpoint) -> Checkpoint:
        return dataclasses.replace(checkpoint, model=f"org/{checkpoint.name}@main", revision="0123456789abcdef" * 2)

    plan = report.plan
    candidates = tuple(move(candidate) for candidate in plan.candidates)
    return dataclasses.replace(report, plan=dataclasses.replace(plan, base=move(plan.base), candidates=candidates))


def test_the_header_is_what_the_hub_expects_of_a_merge(make_report):
    data = ModelCard(card_of(from_hub(make_report()))).data
    assert data.to_dict() == {
        "license": "apache-2.0",
        "base_model": ["org/base", "org/news"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "lm-cocktail"],
    }


@pytest.mark.parametrize(
    ("model_type", "library", "task", "class_name"),
    [
        ("encoder", "sentence-transformers", "sentence-similarity", "SentenceTransformer"),
        ("reranker", "sentence-transformers", "text-ranking", "CrossEncoder"),
        ("encoder-decoder", "transformers", "text2text-generation", "AutoModelForSeq2SeqLM"),
    ],
)
def test_other_model_types_name_their_library_and_task(make_report, model_type, library, task, class_name):
    report = make_report()
    recipe = Recipe.model_validate(report.recipe).model_copy(update={"model_type": model_type})
    card = render_card(recipe, report, read_lineage(recipe, report))
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == (library, task)
    assert f"import {class_name}" in card


def test_local_models_are_named_by_content_and_their_paths_do_not_leak(make_report, tmp_path: Path):
    report = make_report()
    card = card_of(report)
    assert ModelCard(card).data.base_model is None
    assert str(tmp_path) not in card
    assert f"content `sha256:{report.plan.base.digest[:12]}`" in card


def test_weights_losses_and_before_and_after_stand_in_tables(make_report):
    lines = card_of(make_report()).splitlines()
    news = next(line for line in lines if line.startswith("| news | target"))
    # Losses 1.0 and 1.5: mean 1.25, standard error 0.5 / 2 = 0.25, by hand.
    assert news.endswith("| 0.5000 | 1.2500 ± 0.2500 | apache-2.0 |")
    assert "| task | metric | examples | merged | base | news |" in lines
    # Of four examples merged has 3 right (standard error sqrt(0.25 / 4) = 0.25), base 1, news 4.
    assert "| news | accuracy ↑ | 4 | **0.7500** ± 0.2500 | 0.2500 | 1.0000 |" in lines
    assert "- base and news are alike" in lines


def test_different_licences_are_listed_and_not_claimed_for_the_whole(make_report, tmp_path: Path):
    report = make_report()
    (tmp_path / "models/news/README.md").write_text("---\nlicense: mit\n---\n")
    card = card_of(report)
    assert ModelCard(card).data.license is None
    assert "| apache-2.0 |" in card
    assert "| mit |" in card


def test_two_nights_with_other_champions_and_times_give_the_same_card(make_report):
    report = make_report()
    other = make_report(champion="20260101-aaaaaaaaaaaa")
    assert card_of(other) == card_of(dataclasses.replace(report, seconds={"merge": 99.0}, flow_run_id=None))


def test_without_evaluation_there_is_no_table_of_it(make_report):
    card = card_of(dataclasses.replace(make_report(), evaluations=()))
    assert "Before and after" not in card


@pytest.mark.parametrize("distinct_base", [True, False])
def test_a_base_that_is_also_a_candidate_is_listed_once(make_report, distinct_base: bool):
    report = make_report()
    if distinct_base:
        plan = dataclasses.replace(report.plan, candidates=report.plan.candidates[1:])
        report = dataclasses.replace(report, plan=plan)
    lineage = read_lineage(Recipe.model_validate(report.recipe), report)
    assert [(ancestor.checkpoint.name, ancestor.role) for ancestor in lineage] == [("base", "base"), ("news", "target")]
    assert lineage[0].weight == (None if distinct_base else 0.5)


def test_parameters_of_the_method_are_in_the_card_with_defaults_and_weights_by_depth(make_report):
    merge = {"method": "ties", "parameters": {"lambda": 1 / 3}}
    weigh = {"strategy": "given", "weights": {"base": 0.5, "news": [0, 1]}}
    report = make_report(merge=merge, weigh=weigh, candidates=[
        {"name": name, "model": str(make_report().plan.base.folder.parent / name)} for name in ("base", "news")
    ])  # fmt: skip
    by_depth = {"base": 0.5, "news": [0.0, 1.0]}
    report = dataclasses.replace(report, weights=dataclasses.replace(report.weights, by_depth=by_depth))
    assert (
        "Parameters: `lambda` 0.3333; `normalize` true; `density` of base 1.0; `density` of news 1.0; weight of base "
        "0.5; weight of news [0.0, 1.0].\n\nLists are by depth, from the first layer to the last; the table has their "
        "mean.\n"
    ) in card_of(report)


def test_a_method_without_parameters_says_nothing_of_them(make_report):
    assert "Parameters" not in card_of(make_report())
