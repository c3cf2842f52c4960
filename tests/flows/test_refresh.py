"""Whole nights on the bundled models, through Prefect: released, unchanged, rejected, rolled back, killed."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from prefect import flow, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.download.task
import tasks.score.task
from flows.recipe import demo_recipe_path
from flows.refresh import refresh
from flows.rollback import promote, rollback
from flows.run import report_of
from tasks.cache import open_cache
from tasks.data.examples import read_rows
from tasks.devices import open_devices
from tasks.errors import InputError, NonFiniteError, WorkerDiedError
from tasks.plan.plan import plan_refresh
from tasks.recipe import Recipe
from tasks.records import Checkpoint, Score
from tasks.registry.promotion import unblock
from tasks.registry.releases import open_registry
from tasks.registry.verification import verify_release
from tasks.score.task import score
from tasks.settings import CacheSettings
from tests.flows.conftest import DEMO, N_ROWS, read

pytestmark = [pytest.mark.usefixtures("prefect_server")]


def run(recipe: Recipe, cache: CacheSettings, **options: bool) -> tuple[State[Any], dict[str, Any]]:
    state = refresh(recipe, cache=cache, return_state=True, **options)
    return state, state.result()


def test_a_night_releases_a_model_that_gives_the_evaluated_numbers_and_the_next_is_unchanged(
    content: dict[str, Any], cache: CacheSettings, rows: Path
):
    content["gate"] = {"rules": [{"task": "clinc", "against": "base", "min_delta": 0.03}]}
    recipe = read(content)
    state, result = run(recipe, cache)
    assert state.name == "Completed" and result["status"] == "published"
    registry = open_registry(recipe.publish.to[0], recipe.name)
    assert verify_release(registry, "champion") == []
    release = registry.checkpoint(result["version"], "release").folder
    assert {path.name for path in release.iterdir()} >= {
        "README.md", "config.json", "evaluation", "manifest.json", "model.safetensors", "recipe.lock.yaml",
        "report.html", "tokenizer.json",
    }  # fmt: skip
    evaluated = {row["task"]: row["merged"] for row in result["evaluation"]}
    assert evaluated["clinc"] == pytest.approx(plain_accuracy(release, rows / "clinc.jsonl"), abs=1e-9)

    state, again = run(recipe, cache)
    assert state.name == "Unchanged" and again["status"] == "unchanged"
    assert again["version"] == result["version"] and again["weights"] == result["weights"]
    assert again["decided_at"] == registry.read_manifest(result["version"])["created_at"]

    lock = Recipe.model_validate(read_yaml(release / "recipe.lock.yaml"))
    state, from_lock = run(lock, cache)
    assert from_lock["status"] == "unchanged"


def plain_accuracy(folder: Path, data: Path) -> float:
    """An independent measurement: one text at a time, all logits, the label words' tokens compared."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = read_rows(data, "classification")
    labels = sorted({row["output"] for row in examples})
    tokens = [tokenizer(" " + label, add_special_tokens=False)["input_ids"][-1] for label in labels]
    right = 0
    for row in examples:
        with torch.inference_mode():
            logits = model(**tokenizer(row["input"], return_tensors="pt")).logits[0, -1]
        right += labels[int(logits[tokens].argmax())] == row["output"]
    assert len(examples) == N_ROWS
    return right / len(examples)


def test_an_encoder_is_released_with_all_its_files_and_gives_the_evaluated_ndcg(cache: CacheSettings, tmp_path: Path):
    content = read_yaml(demo_recipe_path("encoder"))
    content["candidates"] = [each for each in content["candidates"] if each["name"] in ("base", "clinc")]
    content["score"], content["weigh"]["compare"] = {"devices": ["cpu:0"]}, False
    data = cut_retrieval(DEMO / "data/evaluation/clinc_retrieval", tmp_path / "retrieval")
    content["evaluate"] = [task | {"data": str(data)} for task in content["evaluate"] if task["name"] == "clinc"]
    content["gate"] = {"rules": [{"task": "clinc", "against": "base", "min_delta": 0.0}]}
    content["publish"] = {"to": [str(tmp_path / "releases")]}
    recipe = read(content)
    _, result = run(recipe, cache)
    assert result["status"] == "published"
    registry = open_registry(recipe.publish.to[0], recipe.name)
    assert verify_release(registry, "champion") == []
    release = registry.checkpoint(result["version"], "release").folder
    for path in (DEMO / "models/encoder/base").rglob("*"):
        if path.is_file() and path.name not in ("model.safetensors", "README.md"):
            assert (release / path.relative_to(DEMO / "models/encoder/base")).read_bytes() == path.read_bytes()
    measured = result["evaluation"][0]["merged"]
    assert measured == pytest.approx(plain_ndcg(release, data), abs=1e-4)


def cut_retrieval(data: Path, folder: Path, n_queries: int = 60, n_documents: int = 400) -> Path:
    """The first queries and documents of a BEIR folder, and what is relevant among them."""
    (folder / "qrels").mkdir(parents=True)
    kept: dict[str, set[str]] = {}
    for name, number in (("queries", n_queries), ("corpus", n_documents)):
        lines = (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:number]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        kept[name] = {json.loads(line)["_id"] for line in lines}
    header, *rows = (data / "qrels/test.tsv").read_text(encoding="utf-8").splitlines()
    relevant = [row for row in rows if row.split("\t")[0] in kept["queries"] and row.split("\t")[1] in kept["corpus"]]
    (folder / "qrels/test.tsv").write_text("\n".join([header, *relevant]) + "\n", encoding="utf-8")
    return folder


def plain_ndcg(folder: Path, data: Path) -> float:
    """An independent measurement: sentence-transformers' own evaluator (its relevance is binary, as the data's is)."""
    queries, corpus = texts_by_id(data / "queries.jsonl"), texts_by_id(data / "corpus.jsonl")
    relevant: dict[str, set[str]] = {}
    for line in (data / "qrels/test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, _ = line.split("\t")
        relevant.setdefault(query, set()).add(document)
    encoder = SentenceTransformer(str(folder), model_kwargs={"dtype": "float32"})
    evaluator = InformationRetrievalEvaluator(queries, corpus, relevant, ndcg_at_k=[10])
    return evaluator(encoder)["cosine_ndcg@10"]


def texts_by_id(path: Path) -> dict[str, str]:
    return {row["_id"]: row["text"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_night_that_the_gate_stops_is_rejected_says_why_and_is_not_tried_again(
    content: dict[str, Any], cache: CacheSettings, tmp_path: Path
):
    content["gate"] = {"rules": [{"task": "clinc", "min": 1.01}]}
    recipe = read(content)
    state, result = run(recipe, cache)
    assert state.name == "Rejected" and state.type.value == "COMPLETED"
    assert "1.01" in (state.message or "")
    assert result["status"] == "rejected" and result["release"] == []
    assert list((tmp_path / "releases/assistant").glob("versions/*")) == []
    page = tmp_path / result["page"].removeprefix("file://")
    assert page.parent == tmp_path / "releases/assistant/reports" and "Rejected: clinc" in page.read_text()
    state, again = run(recipe, cache)
    assert state.name == "Unchanged" and "decided before: rejected" in again["message"]
    _, forced = run(recipe, cache, force=True)
    assert forced["status"] == "rejected"


def test_what_was_rolled_back_does_not_come_back_until_it_is_unblocked(content: dict[str, Any], cache: CacheSettings):
    first = run(read(content), cache)[1]
    second = run(read(content | {"weigh": {"strategy": "uniform"}}), cache)[1]
    destination = f"{content['publish']['to'][0]}/assistant"
    registry = open_registry(content["publish"]["to"][0], "assistant")
    assert registry.resolve("champion") == second["version"]

    assert rollback(destination, "answers got worse") == first["version"]
    _, night = run(read(content | {"weigh": {"strategy": "uniform"}}), cache)
    assert night["status"] == "unchanged" and "blocked" in night["message"]
    assert registry.resolve("champion") == first["version"]

    unblock(registry, second["version"], by="test", reason="it was the data", now=datetime.now(UTC))
    assert promote(destination, second["version"], "approved") == second["version"]
    actions = [event.action for event in registry.read_alias("champion").history]
    assert actions[-3:] == ["rollback", "unblock", "promote"]


def test_a_new_destination_and_a_new_alias_are_served_though_the_model_is_the_same(
    content: dict[str, Any], cache: CacheSettings, tmp_path: Path
):
    _, first = run(read(content), cache)
    content["publish"]["to"].append(str(tmp_path / "copy"))
    _, dry = run(read(content), cache, dry_run=True)
    assert dry["status"] == "unchanged" and not (tmp_path / "copy").exists()
    _, again = run(read(content), cache)
    copy = open_registry(str(tmp_path / "copy"), "assistant")
    assert again["status"] == "unchanged" and copy.resolve("champion") == first["version"]
    assert verify_release(copy, "champion") == []

    content["publish"]["alias"] = "canary"
    _, canary = run(read(content), cache)
    assert canary["status"] == "published" and canary["version"] == first["version"]
    assert copy.resolve("canary") == first["version"]


def test_a_release_that_rotted_on_its_disk_is_not_what_the_gate_compares_with(
    content: dict[str, Any], cache: CacheSettings
):
    _, first = run(read(content), cache)
    registry = open_registry(content["publish"]["to"][0], "assistant")
    weights = registry.checkpoint(first["version"], "release").folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\0")
    anchor = f"release:{registry.location}@champion"
    content["name"] = "other"
    content["gate"] = {"rules": [{"task": "clinc", "against": anchor, "max_regression": 0.1}]}
    with pytest.raises(InputError, match=r"model\.safetensors: planned sha256"):
        refresh(read(content), cache=cache)


def test_new_gate_rules_are_asked_of_a_model_that_is_live(content: dict[str, Any], cache: CacheSettings):
    first = run(read(content), cache)[1]
    passing = content | {"gate": {"rules": [{"task": "clinc", "min": 0.5}]}}
    state, asked = run(read(passing), cache)
    assert asked["status"] == "published" and asked["version"] == first["version"]
    assert "min 0.500" in asked["gate"]["reasons"][0]
    assert run(read(passing), cache)[0].name == "Unchanged"
    state, _ = run(read(content | {"gate": {"rules": [{"task": "clinc", "min": 1.01}]}}), cache)
    assert state.name == "Rejected"
    # What is live stays live: the new rules say that it would not be let through today.
    assert open_registry(content["publish"]["to"][0], "assistant").resolve("champion") == first["version"]
    assert run(read(content), cache)[0].name == "Unchanged"


def test_rules_that_once_said_no_are_asked_again_of_the_model_that_other_rules_let_through(
    content: dict[str, Any], cache: CacheSettings
):
    strict = content | {"gate": {"rules": [{"task": "clinc", "min": 1.01}]}}
    assert run(read(strict), cache)[0].name == "Rejected"
    assert run(read(content), cache)[1]["status"] == "published"
    assert run(read(strict), cache)[0].name == "Rejected"


def test_a_dry_run_measures_everything_and_writes_nothing(recipe: Recipe, cache: CacheSettings, tmp_path: Path):
    page = tmp_path / "page.html"
    _, result = run(recipe, cache, dry_run=True, page=str(page))
    assert result["status"] == "dry-run"
    assert result["weights"].keys() == {"base", "clinc", "wordnet"}
    assert "Dry run: nothing was released" in page.read_text()
    assert not list((tmp_path / "releases").rglob("*.json"))


def test_an_optional_candidate_that_breaks_while_it_is_scored_is_left_out(
    content: dict[str, Any], cache: CacheSettings, tmp_path: Path
):
    broken = tmp_path / "broken"
    shutil.copytree(content_path(content, "wordnet"), broken)
    tensors = load_file(broken / "model.safetensors")
    # The norm is a vector: planning samples matrices only, so this passes until losses are computed.
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    content["candidates"].append({"name": "broken", "model": str(broken), "optional": True})
    _, result = run(read(content), cache)
    assert result["status"] == "published"
    assert result["weights"].keys() == {"base", "clinc", "wordnet"}
    del content["candidates"][-1]["optional"]
    with pytest.raises(NonFiniteError, match="broken"):
        refresh(read(content | {"name": "other"}), cache=cache)


def content_path(content: dict[str, Any], name: str) -> Path:
    return DEMO / next(entry["model"] for entry in content["candidates"] if entry["name"] == name)


def test_a_worker_killed_by_sigkill_costs_one_attempt_and_the_others_go_on(recipe: Recipe, tmp_path: Path):
    settings = CacheSettings(folder=str(tmp_path / "cache"))
    planned = plan_refresh(recipe, open_cache(settings))

    @flow
    def scoring() -> list[tuple[str, str]]:
        with open_devices(recipe.score.devices):
            futures = score.map(
                planned.candidates, unmapped(planned.examples), "decoder", unmapped(recipe.score), unmapped(settings)
            )
            futures.wait()
        return [(str(future.task_run_id), future.state.name) for future in futures]

    with killing_the_first_worker():
        runs = scoring()
    assert [state for _, state in runs] == ["Completed"] * 3
    with get_client(sync_client=True) as client:
        counts = [client.read_task_run(run_id).run_count for run_id, _ in runs]
    assert sorted(counts) == [1, 1, 2]


@contextmanager
def killing_the_first_worker() -> Generator[None]:
    """SIGKILL the first device worker of this process as soon as there is one."""
    killed = threading.Event()

    def hunt() -> None:
        while not killed.is_set():
            for pid in device_workers():
                os.kill(pid, signal.SIGKILL)
                killed.set()
                return
            time.sleep(0.02)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    yield
    found = killed.is_set()
    killed.set()
    hunter.join()
    assert found, "there was no worker to kill"


def device_workers() -> list[int]:
    """Process ids of this process's device workers, from /proc."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and "tasks.workers.main" in command:
            found.append(int(folder.name))
    return found


def test_artifacts_of_a_night_tell_losses_metrics_gate_and_card(recipe: Recipe, cache: CacheSettings):
    state, _ = run(recipe, cache)
    this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=this_run)
    artifacts = {artifact.key: artifact for artifact in found if artifact.key}
    table = json.loads(artifacts["assistant-weights"].data)
    assert [row["candidate"] for row in table] == ["base", "clinc", "wordnet"]
    assert {"loss", "standard error", "weight", "95 % interval", "any one example left out"} <= table[0].keys()
    notes = artifacts["assistant-weights"].description.splitlines()
    assert notes[0] == "Losses and weights" and notes[-1].startswith("- Most influential: example ")
    assert "Gate: passed" in artifacts["assistant-gate"].data
    assert json.loads(artifacts["assistant-evaluations"].data)[0]["task"] == "clinc"
    assert "merge" in artifacts["assistant-card"].data
    parts = json.loads(artifacts["assistant-health"].data)
    # The base, which is a candidate, too, did not move.
    assert parts[-1].keys() == {"part of the model", "clinc", "wordnet"}
    assert parts[-1]["part of the model"] == "whole model"
    assert "clinc and wordnet: cosine " in artifacts["assistant-health"].description


def test_a_night_that_ended_after_its_merge_is_finished_by_the_next_without_merging_again(
    content: dict[str, Any], cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    recipe = read(content)
    work = Path(str(cache.folder)) / "work"
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise WorkerDiedError("the machine went down")

        patch.setattr("flows.refresh.evaluation_pairs", fail)
        with pytest.raises(WorkerDiedError):
            refresh(recipe, cache=cache)
    (weights,) = work.glob("*/merged/model.safetensors")
    written = weights.stat().st_mtime_ns, weights.stat().st_ino

    def merge_again(*_: object) -> None:
        raise AssertionError("nothing needs to be merged")

    monkeypatch.setattr("tasks.merge.merge._merge", merge_again)
    seen: list[tuple[int, int]] = []

    def note(*arguments: Any) -> Any:
        merged = arguments[4]
        seen.append((merged.bytes_read, merged.bytes_written))
        assert (weights.stat().st_mtime_ns, weights.stat().st_ino) == written
        return report_of(*arguments)

    monkeypatch.setattr("flows.refresh.report_of", note)
    _, result = run(recipe, cache)
    assert result["status"] == "published" and seen == [(0, 0)]
    registry = open_registry(recipe.publish.to[0], recipe.name)
    assert verify_release(registry, "champion") == []
    assert list(work.iterdir()) == []


@pytest.mark.usefixtures("computes_here")
def test_a_candidate_is_scored_while_another_one_is_still_on_its_way(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scored = threading.Event()
    download_checkpoint, score_candidate = tasks.download.task.download_checkpoint, tasks.score.task.score_candidate

    def download_slowly(checkpoint: Checkpoint, *rest: Any) -> Checkpoint:
        if checkpoint.name == recipe.candidates[-1].name:
            assert scored.wait(60), "no candidate was scored while this one was downloaded"
        return download_checkpoint(checkpoint, *rest)

    def score_and_say_so(*arguments: Any) -> Score:
        found = score_candidate(*arguments)
        scored.set()
        return found

    monkeypatch.setattr("tasks.download.task.download_checkpoint", download_slowly)
    monkeypatch.setattr("tasks.score.task.score_candidate", score_and_say_so)
    state, result = run(recipe, CacheSettings(folder=str(tmp_path / "cache")))
    assert state.name == "Completed"
    assert set(result["losses"]) == {candidate.name for candidate in recipe.candidates}
