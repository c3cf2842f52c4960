"""The page as a whole: well-formed, self-contained, safe against any text, and the same for the same night."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from merge_healths import make_health

from tasks.night_records import RefreshReport
from tasks.publish.lineage import read_lineage
from tasks.publish.report.outcome import Outcome
from tasks.publish.report.page import render_report
from tasks.recipe import Recipe
from tasks.records import Evaluation, GateDecision, SanityCheck, Score
from tasks.weight_records import Baseline, MergeWeights, Tried, Trust

LIVE = Outcome("live", "champion", "20261120-111111111111", "../../../demo")
REJECTED = Outcome("rejected", "champion", None, "s3://models/demo")
EVIL = "</td><script>alert('&\"')</script>\x00\u202e"
VOID = {"meta"}


def render(report: RefreshReport, outcome: Outcome = LIVE, **options: Any) -> str:
    lineage = read_lineage(Recipe.model_validate(report.recipe), report)
    return render_report(report, lineage, outcome, **options)


def parse(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page)


def words(page: str) -> str:
    """All text that is read, with single spaces."""
    body = parse(page).find("body")
    assert body is not None
    return re.sub(r"\s+", " ", " ".join(body.itertext()))


def with_trust(report: RefreshReport, **changes: Any) -> RefreshReport:
    trust = dataclasses.replace(report.weights.trust, **changes)
    return dataclasses.replace(report, weights=dataclasses.replace(report.weights, trust=trust))


class Tags(HTMLParser):
    """What a browser's tokenizer meets: elements that are opened and closed in order, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def full(make_report) -> RefreshReport:
    """A night with everything that a page can show, and texts that no page must take as markup."""
    report = make_report(champion="20261119-aaaaaaaaaaaa", passed=False)
    trust = Trust(
        1.8, (EVIL,), {"base": (0.4, 0.6), "news": (0.4, 0.6)}, {"base": (0.45, 0.55)}, 2, 0.1,
        {"1": {"base": 0.2, "news": 0.8}}, baselines=(Baseline("chosen", {}, 1.0, 0.1), Baseline("uniform", {}, 2, 0)),
        previous={"base": 0.7, "law": 0.3}, changes=(f"law is gone {EVIL}",),
        tried=(Tried({"base": 1.0, "news": 0.0}, 2.0, 0.1, 1.0), Tried({"base": 0.5, "news": 0.5}, 1.0, 0.1, 1.1)),
    )  # fmt: skip
    plan = dataclasses.replace(report.plan, warnings=(EVIL,), left_out={"law": EVIL})
    return dataclasses.replace(
        report,
        plan=plan,
        weights=MergeWeights("sweep", {"base": 0.5, "news": 0.5}, trust),
        merged=dataclasses.replace(report.merged, health=make_health("base", "news", warnings=(EVIL,))),
        gate=GateDecision(False, (f"news: {EVIL}: failed", "news: fine: passed", "of no task: failed")),
        sanity=(SanityCheck("loads", True, EVIL), SanityCheck("generates", False, "nothing came out")),
    )


def test_the_page_is_well_formed_loads_nothing_and_runs_nothing(full: RefreshReport):
    page = render(full)
    parse(page)
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    assert not tags.names & {"script", "link", "img", "iframe", "object", "base", "form", "a", "use", "image"}
    assert not {name for name, _ in tags.attributes} & {"src", "href", "srcset", "onload", "onclick", "action"}
    assert not re.search(r"url\(|@import|https?:", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in tags.attributes


def test_texts_are_text_whatever_they_hold(full: RefreshReport):
    page = render(full)
    # Reason, trust, change, plan, left out, health and check: seven texts, each shown once or more.
    assert words(page).count("alert('&\"')") >= 7
    assert "\x00" not in page and "\u202e" not in page


def test_every_section_of_a_full_night_is_there_in_the_order_of_a_decision(full: RefreshReport):
    titles = [heading.text for heading in parse(render(full)).iter("h2")]
    assert titles == [
        "What changed since 20261119-aaaaaaaaaaaa", "Before and after", "What went in",
        "Loss per example and candidate", "Layers that moved", "Warnings and checks", "Lineage and provenance",
    ]  # fmt: skip
    figures = {"".join(each.itertext()) for each in parse(render(full)).iter("figcaption")}
    assert {
        "news: accuracy, higher is better", "Weights", "The chosen mixture beside simpler ones", "What was tried",
        "What it costs elsewhere",
    } <= figures  # fmt: skip


def test_what_was_said_while_losses_were_measured_is_a_warning_without_paths(full: RefreshReport):
    said = ("1 of 2 texts is cut", "/home/somebody/secret/model is odd")
    scores = tuple(dataclasses.replace(score, warnings=said) for score in full.scores)
    page = words(render(dataclasses.replace(full, scores=scores)))
    assert "losses of base, news: 1 of 2 texts is cut" in page
    assert "losses of base, news: …/model is odd" in page


def test_pictures_are_told_to_people_who_do_not_see_them(full: RefreshReport):
    pictures = list(parse(render(full)).iter("svg"))
    told = [each.attrib["aria-label"] for each in pictures]
    assert all(each.attrib["role"] == "img" for each in pictures)
    # 3 of 4, 2 of 4, 1 of 4 and all right, from conftest; standard errors sqrt(0.25/4), sqrt(1/3/4) and 0.
    numbers = "merged 0.750 ± 0.250; champion 0.500 ± 0.289; base 0.250 ± 0.250; best: news 1.000"
    assert f"news: accuracy, higher is better: {numbers}" in told
    assert "Loss of every mixture: 0.000 gives 2.000; 0.500 gives 1.000 (chosen)" in told


@pytest.mark.parametrize(
    ("outcome", "passed", "line"),
    [
        (LIVE, True, "Live: the gate passed, 1 of 1 rule"),
        (Outcome("pending", version=LIVE.version), True, "a person decides whether champion moves (cocktail promote)"),
        (REJECTED, False, "Rejected: news: +0.25 over the champion"),
        (Outcome("dry run"), True, "Dry run: nothing was released; the gate would pass this model: news: +0.25"),
        (Outcome("dry run"), False, "the gate would reject this model"),
    ],
)
def test_the_verdict_is_one_line_with_the_first_reason(make_report, outcome: Outcome, passed: bool, line: str):
    page = render(make_report(passed=passed), outcome)
    [verdict] = [each for each in parse(page).iter("p") if each.attrib.get("class", "").startswith("verdict")]
    assert line in "".join(verdict.itertext())


def test_changes_are_told_with_numbers_and_doubts(full: RefreshReport):
    told = words(render(full))
    # One of four examples became right: a difference of 0.25 with standard error 0.25.
    assert "news accuracy 0.500 → 0.750 ▲ better, within noise" in told
    assert "law is gone" in told
    assert "no weight moved by more" in words(render(with_trust(full, changes=())))


def test_a_first_night_says_that_there_is_no_champion(make_report):
    told = words(render(make_report()))
    assert "Nothing is live under this name yet, so there is no champion" in told
    # 3 of 4 beside 1 of 4, two of four examples differ: 0.5 with standard error 0.289.
    assert "▲ 0.500 better than base, within noise" in told


def test_a_change_beyond_noise_is_named_worse_where_lower_is_better(make_report):
    report = make_report()
    values = {"merged": (2.0, 2.1, 2.0, 2.1), "base": (1.0, 1.1, 1.0, 1.1)}
    evaluations = [Evaluation("ppl", name, "loss", False, found, "d" * 64, 1.0) for name, found in values.items()]
    told = words(render(dataclasses.replace(report, evaluations=tuple(evaluations))))
    assert "▼ 1.000 worse than base" in told and "noise" not in told
    assert "← better" in told and "No gate rule asks for this task." in told


def test_rules_stand_with_their_task_and_the_others_below(full: RefreshReport):
    rules = [each for each in parse(render(full)).iter("li") if each.attrib.get("class") in ("passed", "failed")]
    signs = [each[0].attrib["aria-label"] for each in rules]
    assert signs == ["failed", "passed", "failed", "passed", "failed"]
    assert "fine: passed" in "".join(rules[1].itertext()) and "of no task" in "".join(rules[2].itertext())


def test_little_that_is_known_makes_a_short_page(make_report):
    report = make_report(evaluate=[], gate={"rules": []})
    report = with_trust(dataclasses.replace(report, evaluations=(), scores=()), warnings=())
    told = words(render(report))
    assert "no evaluation tasks" in told and "There are no warnings." in told and "was not measured" in told
    assert "Loss per example" not in told and "Without intervals" in told


def test_tasks_on_which_a_rule_failed_have_the_first_tiles(make_report):
    report = make_report()
    values = {f"task{place}": (1.0, 1.0 - place / 10) for place in range(7)}
    pairs = [
        Evaluation(task, model, "score", True, (value,) * 2, "d" * 64, 1.0)
        for task, (base, merged) in values.items()
        for model, value in (("base", base), ("merged", merged))
    ]
    gate = GateDecision(False, ("task0: score 1.000 < min 2.000: failed", "task6: fine: passed"))
    page = render(dataclasses.replace(report, evaluations=tuple(pairs), gate=gate), REJECTED)
    labels = [each.text for each in parse(page).iter("p") if each.attrib.get("class") == "label"]
    # Six tiles: the failed one, which did not fall, and then those that fell most.
    assert [label and label.split()[0] for label in labels] == ["task0", "task6", "task5", "task4", "task3", "task2"]


def test_what_only_a_program_counts_has_no_number_of_rows(make_report):
    report = make_report()
    data = {"news": dataclasses.replace(report.plan.evaluation_data["news"], n=0)}
    told = words(render(dataclasses.replace(report, plan=dataclasses.replace(report.plan, evaluation_data=data))))
    assert "0 rows" not in told


def test_a_gate_without_rules_claims_none(make_report):
    nothing_asked = ("the recipe has no gate rules: nothing was asked of the merged model",)
    report = dataclasses.replace(make_report(gate={"rules": []}), gate=GateDecision(True, nothing_asked))
    assert f"Live: {nothing_asked[0]}" in words(render(report))


def test_a_model_that_fails_its_sanity_says_so_on_top_and_where_measurements_would_be(make_report):
    report = make_report(champion="20261119-aaaaaaaaaaaa", passed=False)
    sentence = "sanity, numbers: 1 of 2 tensors are finite; not lm_head.weight: failed"
    told = words(
        render(
            dataclasses.replace(
                report,
                # What the champion's release says of it is known all the same.
                evaluations=tuple(each for each in report.evaluations if each.model == "champion"),
                gate=GateDecision(False, (sentence, "1 gate rules were not judged")),
                sanity=(SanityCheck("numbers", False, sentence),),
            ),
            REJECTED,
        )
    )
    assert f"Rejected: {sentence}" in told
    assert "failed a sanity check, so nothing was measured of it" in told and "no evaluation tasks" not in told
    assert "numbers : 1 of 2 tensors" in told


def test_numbers_that_are_not_finite_do_not_break_the_page(make_report):
    report = make_report(champion="20261119-aaaaaaaaaaaa")
    broken = [dataclasses.replace(e, values=(float("nan"), 1.0, 1.0, float("inf"))) for e in report.evaluations]
    told = words(render(dataclasses.replace(report, evaluations=tuple(broken))))
    assert "not finite, worse" in told


def test_no_path_of_this_machine_is_told(full: RefreshReport, tmp_path: Path):
    base = str(tmp_path / "models/base")
    said = (
        f"release:{tmp_path}/releases/demo@champion", f"{base}/config.json is odd", f"file://{base}",
        "/home/somebody/secret/file.txt: gone", "and/or 1/2 s3://bucket/key/of/it hub://org/name",
    )  # fmt: skip
    report = with_trust(full, warnings=said, changes=said)
    report = dataclasses.replace(
        report, gate=GateDecision(False, said), plan=dataclasses.replace(report.plan, warnings=said)
    )
    page = render(report, REJECTED, environment={"python": "3.11"})
    assert str(tmp_path) not in page and "/home" not in page and "secret" not in page
    assert "…/file.txt: gone" in page and "and/or 1/2 s3://bucket/key/of/it hub://org/name" in page


def test_a_release_has_no_times_of_its_night_and_one_without_has(full: RefreshReport):
    later = dataclasses.replace(full, seconds={"merge": 99.0}, flow_run_id="another")
    assert render(full) == render(later)
    told = words(render(later, REJECTED, environment={"torch": "2.13.0"}))
    assert "merge 99.0 s" in told and "torch 2.13.0" in told
    assert "manifest.json beside this page" in words(render(full))


def test_commands_are_exact(full: RefreshReport):
    live = [each.text for each in parse(render(full)).iter("code")]
    assert "cocktail rollback ../../../demo --bad 20261120-111111111111" in live
    assert "cocktail verify ../../../demo@20261120-111111111111" in live
    waiting = dataclasses.replace(LIVE, verdict="pending", alias="beta", address="hub://org/demo")
    told = [each.text for each in parse(render(full, waiting)).iter("code")]
    assert "cocktail promote hub://org/demo 20261120-111111111111 --alias beta" in told
    assert "cocktail explain s3://models/demo" in [each.text for each in parse(render(full, REJECTED)).iter("code")]
    assert not [each for each in parse(render(full, Outcome("dry run"))).iter("dd")]


def test_ten_candidates_and_64_examples_fit_into_half_a_megabyte(make_report):
    report, names = make_report(), [f"candidate-{place}" for place in range(10)]
    news = report.plan.candidates[1]
    plan = dataclasses.replace(report.plan, candidates=tuple(dataclasses.replace(news, name=name) for name in names))
    scores = tuple(Score(name, tuple(place / 10 for place in range(64)), 9, 1.0) for name in names)
    health = make_health(*names, n_layers=32)
    models = [{"name": name, "model": news.model, "role": "target" if name == names[0] else None} for name in names]
    recipe = report.recipe | {"candidates": models}
    weights = MergeWeights("loss", dict.fromkeys(names, 0.1), Trust(10.0, most_influential=3))
    merged = dataclasses.replace(report.merged, health=health)
    page = render(dataclasses.replace(report, plan=plan, scores=scores, merged=merged, recipe=recipe, weights=weights))
    parse(page)
    assert len(page.encode()) < 500_000


def test_many_examples_are_cut_to_those_that_tell_and_the_influential_one(make_report):
    losses = tuple(float(place) for place in range(200))
    scores = (Score("base", (0.0,) * 200, 9, 1.0), Score("news", losses, 9, 1.0))
    report = with_trust(dataclasses.replace(make_report(), scores=scores), most_influential=1)
    page = render(report)
    hints = [str(each.text) for each in parse(page).iter("title") if str(each.text).startswith("example")]
    # 64 rows and the marked one, two cells each; the spread is largest at the end.
    assert len(hints) == 2 * 65 and hints[0] == "example 200, base: 0.000"
    assert "65 of 200 rows. ▶ marks example 1" in words(page)
