"""A Prefect server for the tests that need one, and the demo's models cut down to a recipe that runs in seconds."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks.score.candidate
from flows.recipe import demo_recipe_path
from tasks.recipe import Recipe
from tasks.settings import CacheSettings

DEMO = demo_recipe_path("decoder").parent
N_ROWS = 100


@pytest.fixture(scope="session")
def prefect_server() -> Generator[None]:
    """Prefect's test harness: a server of its own with an empty database."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CacheSettings:
    """One cache for all tests: a model is scored and evaluated once."""
    return CacheSettings(folder=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of the demo's evaluation files."""
    folder = tmp_path_factory.mktemp("rows")
    for task in ("clinc", "wordnet"):
        lines = (DEMO / f"data/evaluation/{task}.jsonl").read_text(encoding="utf-8").splitlines()[:N_ROWS]
        (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def content(tmp_path: Path, rows: Path) -> dict[str, Any]:
    """The demo's decoder recipe on few rows, with two experts and nothing asked at the gate, releasing to tmp_path."""
    content: dict[str, Any] = yaml.safe_load(demo_recipe_path("decoder").read_text(encoding="utf-8"))
    content["candidates"] = [entry for entry in content["candidates"] if entry["name"] != "banking"]
    content["evaluate"] = [
        {"name": task, "kind": "classification", "data": str(rows / f"{task}.jsonl")} for task in ("clinc", "wordnet")
    ]
    content["gate"] = {"rules": []}
    content["publish"] = {"to": [str(tmp_path / "releases")]}
    # Mixtures for the trust report would need a worker in each of these runs; tests/flows/test_mixing.py has them.
    content["weigh"]["compare"] = False
    # To start a worker takes longer than what it does here; tests/test_devices.py has several at once.
    content["score"] = {"devices": ["cpu:0"]}
    return content


@pytest.fixture
def recipe(content: dict[str, Any]) -> Recipe:
    """`content` as a recipe."""
    return read(content)


@pytest.fixture
def scores_here(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Losses are computed in this process, one model after the other, and kept in a cache of this test alone."""
    one_at_a_time = threading.Lock()

    def call(_setting: object, function: Any, *arguments: object, **_: object) -> Any:
        with one_at_a_time:
            return function("cpu", *arguments)

    monkeypatch.setattr("tasks.score.candidate.call_on_device", call)
    monkeypatch.setattr("tasks.weigh.exploration.call_on_device", call)
    monkeypatch.setattr("tasks.resident._slots", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))


@pytest.fixture
def computes_here(scores_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and evaluations are computed in this process: starting workers takes longer than nights on few rows."""
    for step in ("model", "sanity"):
        monkeypatch.setattr(f"tasks.evaluate.{step}.call_on_device", tasks.score.candidate.call_on_device)


def read(content: dict[str, Any]) -> Recipe:
    """A recipe with the demo's folder as the place of its relative paths."""
    return Recipe.model_validate(content, context={"folder": DEMO})
