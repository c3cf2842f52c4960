import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.cache import ResultCache
from tasks.errors import PreflightError
from tasks.night_records import Plan
from tasks.plan.fingerprints import model_fingerprint
from tasks.plan.plan import plan_refresh
from tasks.records import from_json, to_json

ROWS = [{"input": "is it late", "output": "yes"}, {"input": "is it", "output": "no"}]
Usage = namedtuple("Usage", ["total", "used", "free"])


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def test_rows(tmp_path: Path) -> str:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"input": "maybe", "output": "no"}) + "\n")
    return str(path)


@pytest.fixture
def whole(make_recipe: Any, tmp_path: Path, test_rows: str) -> dict[str, Any]:
    """Sections of a recipe in which every part is in order."""
    return {
        "examples": ROWS,
        "weigh": {"strategy": "loss"},
        "evaluate": [{"name": "news", "kind": "classification", "data": test_rows}],
        "gate": {"rules": [{"task": "news", "min_delta": 0.0}]},
        "publish": {"to": [str(tmp_path / "releases")]},
    }


def test_a_plan_says_what_will_be_done_and_survives_json(
    make_recipe: Any, family: dict[str, Path], whole: dict[str, Any], cache: ResultCache
):
    recipe = make_recipe(**whole)
    plan = plan_refresh(recipe, cache)
    assert plan.base.folder == family["base"]
    assert [checkpoint.name for checkpoint in plan.candidates] == ["base", "news", "law"]
    assert plan.examples is not None and plan.examples.n == 2
    assert plan.evaluation_data["news"].n == 1
    assert (plan.champion, plan.champion_version, plan.rivals) == (None, None, ())
    assert plan.model_fingerprint == model_fingerprint(recipe, plan)
    # Two matrices of 64 x 32, two of 32 x 32 and two norms of 32, in float32; every model once, base is a candidate.
    weights = 4 * (2 * 64 * 32 + 2 * 32 * 32 + 2 * 32)
    assert plan.memory_bytes == weights
    assert plan.bytes_to_write == weights + sum(
        file.size for path, file in plan.base.files.items() if path != "model.safetensors"
    )
    assert plan.bytes_to_read == sum(checkpoint.size for checkpoint in plan.candidates)
    assert from_json(Plan, to_json(plan)) == plan


def test_a_plan_without_publish_and_evaluation_works(make_recipe: Any, cache: ResultCache):
    plan = plan_refresh(make_recipe(), cache)
    assert (plan.examples, plan.evaluation_data, plan.champion, plan.warnings) == (None, {}, None, ())
    assert set(plan.distances) == {"base", "news", "law"}


def test_planning_leaves_nothing_behind_but_what_the_cache_keeps(
    make_recipe: Any, whole: dict[str, Any], cache: ResultCache, tmp_path: Path
):
    (tmp_path / "releases").mkdir()
    before = snapshot(tmp_path / "models") | snapshot(tmp_path / "releases")
    plan_refresh(make_recipe(**whole), cache, tmp_path / "work")
    assert snapshot(tmp_path / "models") | snapshot(tmp_path / "releases") == before
    assert not (tmp_path / "work").exists()
    assert {path.name for path in cache.folder.iterdir()} <= {"results", "blobs"}


def test_a_lock_file_has_the_fingerprints_of_its_recipe(
    make_recipe: Any, family: dict[str, Path], whole: dict[str, Any], cache: ResultCache
):
    plan = plan_refresh(make_recipe(**whole), cache)
    assert plan.examples is not None
    pinned = {
        checkpoint.name: {"model": checkpoint.model, "digest": checkpoint.revision} for checkpoint in plan.candidates
    }
    lock = {"base_digest": plan.base.revision, "examples_sha256": plan.examples.sha256}
    again = plan_refresh(make_recipe(pinned, **whole, **lock), cache)
    assert again.model_fingerprint == plan.model_fingerprint
    assert again.decision_fingerprint == plan.decision_fingerprint


def test_offenders_of_all_parts_are_listed_at_once(
    make_recipe: Any, family: dict[str, Path], whole: dict[str, Any], tensors: Any, write_model: Any,
    cache: ResultCache, tmp_path: Path,
):  # fmt: skip
    (tmp_path / "file").write_text("")
    recipe = make_recipe(
        {**family, "gone": tmp_path / "gone", "stranger": write_model("stranger", tensors[0](7))},
        **whole
        | {
            "examples": [{"input": "maybe", "output": "no"}, {"input": "is it", "output": "yes " * 70}],
            "publish": {"to": [str(tmp_path / "file" / "releases"), "s3://models"]},
        },
    )
    with pytest.raises(PreflightError) as caught:
        plan_refresh(recipe, cache, tmp_path / "file" / "work")
    problems = caught.value.problems
    expected = [
        "candidate 'gone': ",
        "candidate 'stranger': it does not descend",
        "examples: 1 of 2 rows are also in evaluation task 'news' (example rows 1)",
        "examples: 1 of 2 answers cannot be predicted",
        f"work folder {tmp_path}/file/work: {tmp_path}/file is no folder",
        f"publish.to: {tmp_path}/file/releases",
        "publish.to: s3://models/demo/versions/.probe",
    ]
    for text in expected:
        assert any(problem.startswith(text) for problem in problems), (text, problems)
    assert str(caught.value).startswith(f"{len(problems)} problems found before any work started:\n  - ")


def test_a_further_destination_that_is_away_for_now_is_a_warning_and_a_first_one_a_problem(
    make_recipe: Any, cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_address: str
):
    monkeypatch.setattr("tasks.remote.retries.time.sleep", lambda seconds: None)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{unused_address}")
    here, away, tracker = str(tmp_path / "releases"), "s3://models/releases", f"mlflow://{unused_address}"

    planned = plan_refresh(make_recipe(publish={"to": [here, away, tracker]}), cache)
    said = [warning for warning in planned.warnings if warning.startswith("publish.to: ")]
    assert len(said) == 2 and away in said[0] and tracker in said[1]

    with pytest.raises(PreflightError, match=f"publish.to: {away}.*S3 cannot be reached after 5 attempts"):
        plan_refresh(make_recipe(publish={"to": [away, here]}), cache)


def test_an_mlflow_destination_of_no_known_form_is_a_problem(make_recipe: Any, cache: ResultCache, tmp_path: Path):
    destinations = [str(tmp_path / "releases"), "mlflow://no/server here"]
    with pytest.raises(PreflightError, match=r"mlflow://no/server here. is no address of an MLflow server"):
        plan_refresh(make_recipe(publish={"to": destinations}), cache)


def test_devices_that_are_not_here_are_refused_where_models_will_run(
    make_recipe: Any, whole: dict[str, Any], cache: ResultCache
):
    with pytest.raises(PreflightError, match=r"score\.devices: 'cuda:99' is not there"):
        plan_refresh(make_recipe(**whole, score={"devices": ["cuda:99"]}), cache)
    nothing_runs = {"evaluate": [], "gate": {}, "weigh": {"strategy": "uniform"}, "score": {"devices": ["cuda:99"]}}
    assert plan_refresh(make_recipe(**whole | nothing_runs), cache).candidates


def test_a_gpu_that_is_not_here_to_merge_is_refused_before_anything_is_scored(make_recipe: Any, cache: ResultCache):
    with pytest.raises(PreflightError, match=r"merge\.device: 'cuda:99' is not there"):
        plan_refresh(make_recipe(merge={"device": "cuda:99"}), cache)
    assert plan_refresh(make_recipe(merge={"device": "auto"}), cache).candidates


def test_a_run_that_writes_no_model_needs_no_room_for_one(
    make_recipe: Any, whole: dict[str, Any], cache: ResultCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1))
    with pytest.raises(PreflightError, match="1 free; make room"):
        plan_refresh(make_recipe(**whole), cache)
    assert plan_refresh(make_recipe(**whole), cache, merges=False).candidates


def test_an_answer_longer_than_the_model_can_read_is_named_by_row(
    make_recipe: Any, whole: dict[str, Any], cache: ResultCache
):
    rows = [*ROWS, {"input": "is it", "output": "no " * 70}]
    with pytest.raises(PreflightError, match=r"row 3 .*the answer has 70 tokens .*but the limit is 64"):
        plan_refresh(make_recipe(**whole | {"examples": rows}), cache)
    rows[2]["output"] = "no " * 20
    with pytest.raises(PreflightError, match=r"row 3 .*the answer has 20 tokens .*but the limit is 16"):
        plan_refresh(make_recipe(**whole | {"examples": rows}, score={"max_length": 16}), cache)
    assert plan_refresh(make_recipe(**whole | {"examples": rows}), cache).warnings == ()


def test_without_a_tokenizer_answers_are_not_measured_and_that_is_said(
    make_recipe: Any, family: dict[str, Path], whole: dict[str, Any], cache: ResultCache
):
    for folder in family.values():
        (folder / "tokenizer.json").rename(folder / "vocab.txt")
    assert any("answers were not measured" in warning for warning in plan_refresh(make_recipe(**whole), cache).warnings)


def test_too_little_space_is_named_with_both_figures(
    make_recipe: Any, whole: dict[str, Any], cache: ResultCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 0, 10_000))
    with pytest.raises(PreflightError, match=r"releases: [\d,]+ bytes to write, 10,000 free; make room"):
        plan_refresh(make_recipe(**whole), cache)


def test_the_champion_and_the_releases_of_rules_are_found(
    make_recipe: Any, whole: dict[str, Any], release: Any, cache: ResultCache
):
    champion, older = release("demo", version="20260102-0123456789ab"), release("older")
    anchor = f"release:{release.destination}/older@{older}"
    rules = [{"task": "news", "min_delta": 0.0}, {"task": "news", "against": anchor, "max_regression": 0.1}]
    first = plan_refresh(make_recipe(**whole), cache)
    plan = plan_refresh(make_recipe(**whole | {"gate": {"rules": rules}}), cache)
    assert plan.champion_version == champion
    assert [rival.name for rival in plan.rivals] == ["champion", anchor]
    assert plan.champion is not None and plan.champion.folder.name == champion
    assert plan.model_fingerprint == first.model_fingerprint
    assert plan.decision_fingerprint != first.decision_fingerprint


def test_a_damaged_champion_and_a_missing_release_are_named(
    make_recipe: Any, whole: dict[str, Any], release: Any, cache: ResultCache
):
    release("demo")
    (release.destination / "demo" / "aliases" / "champion.json").write_text("{")
    rules = [{"task": "news", "against": "release:/nowhere/demo@champion", "max_regression": 0.1}]
    with pytest.raises(PreflightError) as caught:
        plan_refresh(make_recipe(**whole | {"gate": {"rules": rules}}), cache)
    problems = caught.value.problems
    assert problems[0].startswith("the champion (champion): ") and "damaged" in problems[0]
    assert problems[1].startswith("gate rule against release:/nowhere/demo@champion: ")


def test_left_out_candidates_change_the_fingerprint_and_are_reported(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache, caplog: pytest.LogCaptureFixture
):
    optional = {name: {"model": str(folder), "optional": True} for name, folder in family.items()}
    before = plan_refresh(make_recipe(optional), cache)
    shutil.rmtree(family["law"])
    after = plan_refresh(make_recipe(optional), cache)
    assert list(after.left_out) == ["law"]
    assert "left out, as it is optional: candidate 'law': " in caplog.text
    assert [checkpoint.name for checkpoint in after.candidates] == ["base", "news"]
    assert after.model_fingerprint != before.model_fingerprint


def test_warnings_are_in_the_plan_and_in_the_log(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache, caplog: pytest.LogCaptureFixture
):
    shutil.copytree(family["news"], family["news"].with_name("copy"))
    plan = plan_refresh(make_recipe({**family, "copy": family["news"].with_name("copy")}), cache)
    assert plan.warnings == ("candidates 'news' and 'copy' are one and the same model, which so counts 2 times",)
    assert plan.warnings[0] in caplog.text


def test_a_nan_of_the_base_is_found(make_recipe: Any, write_model: Any, tensors: Any, cache: ResultCache):
    broken = tensors[0](0)
    broken["lm_head.weight"][0, 0] = np.inf
    with pytest.raises(PreflightError, match=r"the base: tensor 'lm_head\.weight' holds NaN or infinity"):
        plan_refresh(make_recipe({"news": write_model("x", broken)}, base=None), cache)


def test_planning_imports_neither_torch_nor_transformers_nor_prefect():
    heavy = "('torch', 'transformers', 'prefect')"
    code = f"import sys, tasks.plan.plan, tasks.download.candidate; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
