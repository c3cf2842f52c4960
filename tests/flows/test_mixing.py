"""Strategies that mix in memory, from a recipe to weights and a merged model, as the commands run them."""

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from flows import direct
from flows.mixing import mixes, mixing_of
from flows.terminal.tables import plan_parts
from tasks.cache import open_cache
from tasks.plan.plan import plan_refresh
from tasks.settings import CacheSettings
from tests.flows.conftest import DEMO, read

CLINC = str(DEMO / "data/examples/clinc.jsonl")


def render(part: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def measured(strategy: str, **keys: Any) -> dict[str, Any]:
    """Sections of a recipe that weighs by a strategy, without the keys of others."""
    return {"weigh": {"strategy": strategy, **keys}, "examples": CLINC}


@pytest.mark.usefixtures("scores_here")
def test_a_sweep_with_a_guard_ends_in_a_merged_model(content: dict[str, Any], tmp_path: Path):
    cache = open_cache(CacheSettings(folder=str(tmp_path / "cache")))
    general = {"examples": str(DEMO / "data/examples/wordnet.jsonl"), "max_loss_increase": 0.2}
    recipe = read(content | measured("sweep", grid=[0, 0.5, 1], general=general))
    labels = list[str]()

    def progress(label: str) -> direct.Report:
        labels.append(label)
        return lambda done, total: None

    planned, candidates = direct.prepare(recipe, cache, tmp_path / "out", progress)
    assert planned.general_examples is not None and planned.general_examples.n == 64
    shown = "".join(render(part) for part in plan_parts(recipe, planned, {}, {"scores": (0, 3), "evaluations": (0, 6)}))
    assert re.search(r"general examples\W+64", shown)
    planned, candidates, scores, weights = direct.score_candidates(recipe, planned, candidates, cache, progress)
    assert weights.strategy == "sweep" and len(weights.trust.tried) == 3 and len(scores) == 3
    assert [baseline.name for baseline in weights.trust.baselines] == ["chosen", "uniform", "clinc"]
    # The expert alone has forgotten too much.
    assert weights.weights["clinc"] == 0.5
    assert labels[-1] == "weigh"
    merged = direct.merge_candidates(recipe, planned, candidates, weights, tmp_path / "out", cache)
    assert (merged.checkpoint.folder / "model.safetensors").is_file()


@pytest.mark.usefixtures("scores_here")
def test_a_search_needs_no_omegas_and_no_server(content: dict[str, Any], tmp_path: Path):
    cache = open_cache(CacheSettings(folder=str(tmp_path / "cache")))
    skills = [{"name": entry["name"], "model": entry["model"]} for entry in content["candidates"][1:]]
    sections = measured("search", n_mixtures=4) | {"candidates": skills, "merge": {"method": "task_arithmetic"}}
    recipe = read(content | sections)
    planned, candidates = direct.prepare(recipe, cache)
    *_, weights = direct.score_candidates(recipe, planned, candidates, cache)
    assert weights.strategy == "search" and len(weights.trust.tried) == 4


def test_what_can_be_mixed_in_memory_is_told_by_the_recipe(content: dict[str, Any], cache: CacheSettings):
    def found(**sections: Any) -> Any:
        recipe = read(content | sections)
        planned = plan_refresh(recipe, open_cache(cache))
        return mixing_of(recipe, planned, planned.base, planned.candidates)

    mixing = found()
    assert (mixing.method, mixing.general, mixing.scale) == ("linear", None, 1.0)
    assert [each.name for each in mixing.candidates] == ["base", "clinc", "wordnet"]
    assert found(weigh={"strategy": "uniform"}) is None
    assert found(merge={"method": "ties"}) is None
    assert found(merge={"method": "linear", "embeddings": "base"}) is None
    base, clinc, wordnet = content["candidates"]
    roles = [base | {"role": "general"}, clinc | {"role": "skill"}, wordnet | {"role": "skill"}]
    merge = {"method": "task_arithmetic", "parameters": {"lambda": 0.5}}
    mixing = found(weigh={"strategy": "sweep"}, merge=merge, candidates=roles)
    assert (mixing.method, mixing.general, mixing.scale) == ("task_arithmetic", "base", 0.5)


def test_the_base_is_needed_where_models_may_be_mixed(content: dict[str, Any]):
    assert not mixes(read(content))
    assert mixes(read(content | {"weigh": content["weigh"] | {"compare": True}}))
    assert not mixes(read(content | {"weigh": {"strategy": "uniform"}}))
    assert mixes(read(content | {"weigh": {"strategy": "sweep", "compare": False}}))
