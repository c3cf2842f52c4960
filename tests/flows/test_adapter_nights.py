"""A recipe with a full fine-tune and a LoRA candidate, from its plan to its release."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_adapters import save_merged, write_adapter
from tiny_models import save_decoder

from flows import direct
from flows.run import report_of
from tasks.cache import ResultCache
from tasks.gate.decide import decide
from tasks.plan.plan import plan_refresh
from tasks.publish.release import publish_release
from tasks.recipe import Recipe
from tasks.registry.releases import open_registry

ROWS = [
    {"input": f"question {word} {word}", "output": ("yes", "no")[number % 2]} for number, word in enumerate("abcde")
]
MODULES = {"model.layers.0.self_attn.q_proj": (16, 16), "model.layers.1.mlp.down_proj": (16, 24)}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A base, a fine-tune of it, an adapter for it, and what base and adapter make together."""
    base, news = save_decoder(tmp_path / "base", 1), save_decoder(tmp_path / "news", 1)
    generator = torch.Generator().manual_seed(2)
    tuned = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(news / "model.safetensors").items()
    }
    save_file(tuned, news / "model.safetensors", {"format": "pt"})
    lora = write_adapter(tmp_path / "lora", MODULES, size=0.3)
    return {"base": base, "news": news, "lora": lora, "both": save_merged(base, lora, tmp_path / "both")}


@pytest.fixture
def recipe(models: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in ROWS[3:]))
    return {
        "name": "demo",
        "model_type": "decoder",
        "base": str(models["base"]),
        "candidates": [
            {"name": "base", "model": str(models["base"])},
            {"name": "news", "model": str(models["news"])},
            {"name": "chat", "model": str(models["base"]), "adapter": str(models["lora"])},
        ],
        "examples": ROWS[:3],
        "score": {"max_length": 16, "devices": ["cpu:0"]},
        "weigh": {"strategy": "loss"},
        "evaluate": [{"name": "words", "kind": "classification", "data": str(held_out)}],
        "publish": {"to": [str(tmp_path / "releases")]},
    }


def test_a_night_with_a_lora_candidate_is_that_of_the_model_it_makes_and_is_released(
    recipe: dict[str, Any], models: dict[str, Path], computes_here: None, tmp_path: Path
):
    cache, asked = ResultCache(tmp_path / "cache"), Recipe.model_validate(recipe)
    planned, candidates = direct.prepare(asked, cache, tmp_path / "out")
    planned, candidates, scores, weights = direct.score_candidates(asked, planned, candidates, cache)

    whole = recipe | {"candidates": [*recipe["candidates"][:2], {"name": "chat", "model": str(models["both"])}]}
    other = Recipe.model_validate(whole)
    theirs, models_of_other = direct.prepare(other, cache)
    _, _, expected, expected_weights = direct.score_candidates(other, theirs, models_of_other, cache)
    assert [score.losses for score in scores] == [score.losses for score in expected]
    assert weights.weights == expected_weights.weights

    merged = direct.merge_candidates(asked, planned, candidates, weights, tmp_path / "out", cache)
    tensors = {name: load_file(models[name] / "model.safetensors") for name in ("base", "news", "both")}
    shares = dict(zip(("base", "news", "both"), weights.weights.values(), strict=True))
    for name, tensor in load_file(tmp_path / "out/model.safetensors").items():
        sums = sum(share * tensors[model][name].double() for model, share in shares.items())
        torch.testing.assert_close(tensor.double(), sums, rtol=0, atol=1e-6)

    measured = [merged.checkpoint, planned.base, *candidates]
    evaluations = direct.evaluate_models(asked, planned.evaluation_data, measured, cache)
    assert [evaluation.model for evaluation in evaluations] == ["merged", "base", "news", "chat"]
    decision = decide([], evaluations, [candidate.name for candidate in candidates])
    report = report_of(asked, planned, scores, weights, merged, evaluations, decision, {})
    assert asked.publish is not None
    release = publish_release(report, asked.publish, now=datetime(2026, 11, 20, tzinfo=UTC), by="night", cache=cache)

    registry = open_registry(asked.publish.to[0], "demo")
    assert registry.read_manifest(release.version)["models"][2]["adapter"]["model"] == str(models["lora"])
    folder = tmp_path / "releases" / registry.version_path(release.version)
    locked = Recipe.model_validate(yaml.safe_load((folder / "recipe.lock.yaml").read_text()))
    again = plan_refresh(locked, cache)
    assert again.model_fingerprint == planned.model_fingerprint
    assert direct.count_cached(asked, again, cache)["scores"] == (3, 3)
