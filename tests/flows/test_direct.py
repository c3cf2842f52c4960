"""The steps as plain calls: errors in order, Ctrl-C that is not waited for, places that are checked first."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from s3_server import S3Server
from seeding import put_on_hub, put_on_s3
from tiny_models import save_decoder, save_fine_tune

from flows import direct
from tasks.cache import open_cache
from tasks.errors import (
    CheckpointError,
    InputError,
    ModelChangedError,
    NonFiniteError,
    PreflightError,
    RecipeError,
)
from tasks.merge.leased import Merge, merge_leased
from tasks.merge.task import merge as merge_face
from tasks.merge_records import MergedModel
from tasks.plan.plan import plan_refresh
from tasks.recipe import Recipe
from tasks.records import Checkpoint, Score
from tasks.remote.access import HubAccess, hub_access, use_access
from tasks.settings import CacheSettings, MergeSettings
from tests.flows.conftest import DEMO, read


def test_calls_in_threads_answer_in_order_each_with_its_result_or_its_error():
    def halve(number: int) -> int:
        time.sleep(0.01 * number)
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    results = direct.run_all(halve, [4, 3, 2])
    assert (results[0], str(results[1]), results[2]) == (2, "3 is odd", 1)
    assert direct.run_all(halve, []) == []


def test_threads_know_who_we_are_on_the_hub():
    with use_access(hub=HubAccess(endpoint="https://hub.example")):
        found = direct.run_all(lambda _: hub_access().endpoint, [1, 2])
    assert found == ["https://hub.example"] * 2


def test_an_interrupt_does_not_wait_for_the_other_threads():
    release = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        release.wait(100)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        direct.run_all(work, [0, 1, 2])
    assert time.monotonic() - start < 50
    release.set()


def test_candidates_that_break_while_scored_are_left_out_if_optional(
    content: dict[str, Any], cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    def score(checkpoint: Checkpoint, *_: object) -> Score:
        if checkpoint.name == "wordnet":
            raise NonFiniteError("candidate wordnet: the loss of row 1 is not finite")
        return Score(checkpoint.name, (1.0, 2.0), 2, 0.1)

    monkeypatch.setattr("tasks.score.candidate.score_candidate", score)
    content["candidates"][2]["optional"] = True
    recipe, results = read(content), open_cache(cache)
    planned, candidates = direct.prepare(recipe, results)
    settled, usable, scores, weights = direct.score_candidates(recipe, planned, candidates, results)
    assert [model.name for model in usable] == ["base", "clinc"] == [score.candidate for score in scores]
    assert weights.weights == {"base": 0.5, "clinc": 0.5}
    assert settled.left_out.keys() == {"wordnet"} and settled.model_fingerprint != planned.model_fingerprint

    del content["candidates"][2]["optional"]
    with pytest.raises(NonFiniteError, match="candidate wordnet"):
        direct.score_candidates(read(content), planned, candidates, results)


def test_an_output_that_is_taken_is_refused_before_anything_is_planned(
    content: dict[str, Any], cache: CacheSettings, tmp_path: Path
):
    recipe = read(
        content | {"base": "/none", "candidates": [{"name": "x", "model": "/none"}, *content["candidates"][1:]]}
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()
    with pytest.raises(CheckpointError, match="the folder is not empty"):
        direct.prepare(recipe, open_cache(cache), tmp_path / "out")
    with pytest.raises(PreflightError, match="no such folder"):
        direct.prepare(recipe, open_cache(cache), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_free_bytes_are_told_for_every_place_that_is_written(content: dict[str, Any], tmp_path: Path):
    cache = open_cache(CacheSettings(folder=str(tmp_path / "cache")))
    found = direct.free_bytes(read(content), cache)
    assert list(found) == [str(tmp_path / "cache/work"), str(tmp_path / "releases")]
    assert min(found.values()) > 0
    assert list(direct.free_bytes(read(content | {"publish": None}), cache)) == [str(tmp_path / "cache/work")]


def test_a_destination_that_holds_no_files_has_no_room_to_tell(content: dict[str, Any], tmp_path: Path):
    content["publish"]["to"].append("mlflow://localhost:5000")
    found = direct.free_bytes(read(content), open_cache(CacheSettings(folder=str(tmp_path / "cache"))))
    assert list(found) == [str(tmp_path / "cache/work"), str(tmp_path / "releases")]


@pytest.fixture
def elsewhere(content: dict[str, Any], hub: HubServer, s3: S3Server) -> dict[str, Any]:
    """The recipe with its base on the Hub and a candidate on S3."""
    base, clinc = content["candidates"][0], content["candidates"][1]
    put_on_hub(hub, "org/base", DEMO / base["model"])
    put_on_s3(s3, "s3://models/clinc", DEMO / clinc["model"])
    base["model"] = content["base"] = "org/base"
    clinc["model"] = "s3://models/clinc"
    return content


def test_base_and_candidates_are_brought_here_once_before_the_work(
    elsewhere: dict[str, Any], hub: HubServer, s3: S3Server, tmp_path: Path
):
    cache, labels = open_cache(CacheSettings(folder=str(tmp_path / "cache"))), list[str]()

    def progress(label: str) -> direct.Report:
        labels.append(label)
        return lambda done, total: None

    planned, candidates = direct.prepare(read(elsewhere), cache, tmp_path / "out", progress)
    assert planned.base.folder == candidates[0].folder
    assert all((model.folder / "model.safetensors").is_file() for model in (planned.base, *candidates))
    assert [model.digest for model in planned.candidates] == [model.digest for model in candidates]
    assert labels[0] == "download base" and sorted(labels[1:]) == [
        f"download {candidate.name}" for candidate in sorted(candidates, key=lambda model: model.name)
    ]


def test_what_nodes_would_share_is_done_on_this_machine_which_needs_the_room(elsewhere: dict[str, Any], tmp_path: Path):
    shared = elsewhere | {"runner": "ray", "merge": {"split": True}}
    sizes: list[tuple[int, str]] = []
    for name, content in (("alone", elsewhere), ("shared", shared)):
        cache = open_cache(CacheSettings(folder=str(tmp_path / name)))
        planned, _ = direct.prepare(read(content), cache, tmp_path / f"{name} merged")
        sizes.append((planned.bytes_to_download, planned.model_fingerprint))
    assert sizes[0] == sizes[1] and sizes[0][0] > 0


def test_models_to_evaluate_are_brought_here(elsewhere: dict[str, Any], tmp_path: Path):
    cache = open_cache(CacheSettings(folder=str(tmp_path / "cache")))
    models, _ = direct.resolve_models(read(elsewhere), ["org/base", "s3://models/clinc"], cache)
    assert [model.name for model in models] == ["org/base", "s3://models/clinc"]
    assert all((model.folder / "model.safetensors").is_file() for model in models)


def test_models_to_evaluate_are_resolved_once_and_bad_ones_listed_together(
    content: dict[str, Any], cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    recipe = read(content)
    base = recipe.candidates[0].model
    models, data = direct.resolve_models(recipe, [base, base], open_cache(cache))
    assert [model.name for model in models] == [base] and data.keys() == {task.name for task in recipe.evaluate}
    with pytest.raises(PreflightError) as caught:
        direct.resolve_models(recipe, ["base", "/none", base], open_cache(cache))
    assert len(caught.value.problems) == 2
    with pytest.raises(RecipeError, match="evaluate: the recipe names no evaluation tasks"):
        direct.resolve_models(recipe.model_copy(update={"evaluate": []}), [base], open_cache(cache))


def test_what_is_cached_is_counted_of_what_there_is_before_the_merge(content: dict[str, Any], tmp_path: Path):
    cache = open_cache(CacheSettings(folder=str(tmp_path / "cache")))
    recipe = read(content)
    planned = plan_refresh(recipe, cache)
    # Three candidates, of which one is the base; two evaluation tasks.
    assert direct.count_cached(recipe, planned, cache) == {"scores": (0, 3), "evaluations": (0, 6)}
    uniform = read(content | {"weigh": {"strategy": "uniform"}, "evaluate": [], "gate": {"rules": []}})
    planned = plan_refresh(uniform, cache)
    assert direct.count_cached(uniform, planned, cache) == {"scores": (0, 0), "evaluations": (0, 0)}


def test_a_recipe_without_a_base_merges_by_token_in_both_ways_to_run_it(tmp_path: Path, cache: CacheSettings):
    save_fine_tune(tmp_path / "law", save_decoder(tmp_path / "plain", 1, template="$A"), 2, tokens=["<law>"])
    candidates = [{"name": name, "model": str(tmp_path / name)} for name in ("plain", "law")]
    weigh = {"strategy": "given", "weights": {"plain": 1, "law": 1}}
    merge = {"method": "nuslerp", "embeddings": "union"}
    recipe = read({"name": "x", "model_type": "decoder", "candidates": candidates, "weigh": weigh, "merge": merge})
    planned, models = direct.prepare(recipe, open_cache(cache), tmp_path / "out")
    planned, models, _, weights = direct.score_candidates(recipe, planned, models, open_cache(cache))
    merged = direct.merge_candidates(recipe, planned, models, weights, tmp_path / "out", open_cache(cache))
    assert (merged.vocabulary, merged.added_tokens) == ("union", 1)
    assert any("'<law>'" in warning for warning in planned.warnings)
    # In the flow, which says of a recipe whether it names a base; with one, task vectors would be turned.
    arguments = (planned.base, models, weights, recipe.merge, recipe.candidates)
    by_face = [merge_face.fn(*arguments, str(tmp_path / f"{has}"), cache, has_base=has) for has in (False, True)]
    assert [each.checkpoint.digest == merged.checkpoint.digest for each in by_face] == [True, False]


@pytest.fixture
def trained_on(tmp_path: Path) -> Recipe:
    """A recipe of models in folders that a training job may save to."""
    save_fine_tune(tmp_path / "law", save_decoder(tmp_path / "plain", 1), 2)
    candidates = [{"name": name, "model": str(tmp_path / name)} for name in ("plain", "law")]
    weigh = {"strategy": "given", "weights": {"plain": 0.5, "law": 0.5}}
    return read({"name": "x", "model_type": "decoder", "candidates": candidates, "weigh": weigh})


def save_again(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-4] + b"\0" * 4)


def test_a_candidate_that_was_written_over_since_planning_is_merged_in_neither_way_to_run_it(
    trained_on: Recipe, tmp_path: Path, cache: CacheSettings
):
    recipe, kept = trained_on, open_cache(cache)
    planned, models = direct.prepare(recipe, kept, tmp_path / "out")
    planned, models, _, weights = direct.score_candidates(recipe, planned, models, kept)
    save_again(tmp_path / "law")
    message = f"law: {tmp_path}/law changed since it was planned:\n  - model.safetensors: planned sha256"
    with pytest.raises(InputError, match=message):
        direct.merge_candidates(recipe, planned, models, weights, tmp_path / "out", kept)
    with pytest.raises(InputError, match=message):
        output = str(tmp_path / "out")
        merge_face.fn(planned.base, models, weights, recipe.merge, recipe.candidates, output, cache)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law", "plain"]


def test_a_candidate_that_is_written_over_while_a_gpu_is_waited_for_is_not_merged(
    trained_on: Recipe, tmp_path: Path, cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    recipe, kept = trained_on, open_cache(cache)
    planned, models = direct.prepare(recipe, kept, tmp_path / "out")
    planned, models, _, weights = direct.score_candidates(recipe, planned, models, kept)

    def wait(settings: MergeSettings, merge: Merge, report: direct.Report) -> MergedModel:
        time.sleep(0.02)
        save_again(tmp_path / "law")
        return merge_leased(settings, merge, report)

    for module in ("flows.direct", "tasks.merge.task"):
        monkeypatch.setattr(f"{module}.merge_leased", wait)
    with pytest.raises(ModelChangedError, match=r"law: .*/model\.safetensors was written to"):
        direct.merge_candidates(recipe, planned, models, weights, tmp_path / "out", kept)
    # Planned anew, as by the next run.
    planned, models = direct.prepare(recipe, kept, tmp_path / "out")
    with pytest.raises(ModelChangedError, match=r"law: .*/model\.safetensors was written to"):
        output = str(tmp_path / "out")
        merge_face.fn(planned.base, models, weights, recipe.merge, recipe.candidates, output, cache)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law", "plain"]
