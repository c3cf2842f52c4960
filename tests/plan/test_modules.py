import json
from pathlib import Path
from typing import Any

import pytest

from tasks.cache import ResultCache
from tasks.plan.findings import Findings
from tasks.plan.modules import compare_modules
from tasks.plan.resolve import resolve_checkpoint

NEW = ["sentence_transformers.base.modules.transformer.Transformer", "sentence_transformers.x.modules.pooling.Pooling"]
OLD = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
MEAN = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
OLD_MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def add_modules(folder: Path, types: list[str], pooling: dict[str, Any]) -> Path:
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": n, "name": str(n), "path": paths[n], "type": kind} for n, kind in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def compare(base: Path, candidate: Path, cache: ResultCache) -> Findings:
    models = (resolve_checkpoint(folder.name, str(folder), None, cache) for folder in (base, candidate))
    return compare_modules(*models, "candidate 'law'")


def test_old_and_new_spellings_of_one_pooling_agree(write_model: Any, cache: ResultCache):
    base, candidate = add_modules(write_model("base"), NEW, MEAN), add_modules(write_model("law"), OLD, OLD_MEAN)
    assert compare(base, candidate, cache) == Findings()


def test_another_pooling_is_named(write_model: Any, cache: ResultCache):
    cls = OLD_MEAN | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    base, candidate = add_modules(write_model("base"), NEW, MEAN), add_modules(write_model("law"), OLD, cls)
    assert compare(base, candidate, cache).problems == [
        'candidate \'law\': its Pooling has pooling_mode = ["cls"], the base\'s ["mean"]; both must make embeddings '
        "alike"
    ]


def test_another_chain_of_modules_is_named(write_model: Any, cache: ResultCache):
    base = add_modules(write_model("base"), [*NEW, "sentence_transformers.models.Normalize"], MEAN)
    candidate = add_modules(write_model("law"), NEW, MEAN)
    assert compare(base, candidate, cache).problems == [
        "candidate 'law': its modules are Transformer > Pooling, the base's Transformer > Pooling > Normalize; both "
        "must end alike"
    ]


@pytest.mark.parametrize(("lacking", "text"), [("law", "the base has modules.json"), ("base", "it has modules.json")])
def test_modules_on_one_side_only_are_named(write_model: Any, cache: ResultCache, lacking: str, text: str):
    folders = {name: add_modules(write_model(name), NEW, MEAN) for name in ("base", "law")}
    (folders[lacking] / "modules.json").unlink()
    (problem,) = compare(folders["base"], folders["law"], cache).problems
    assert text in problem and "pooling is unknown" in problem


def test_other_prompts_are_a_warning(write_model: Any, cache: ResultCache):
    folders = {name: add_modules(write_model(name), NEW, MEAN) for name in ("base", "law")}
    for folder, query in zip(folders.values(), ("", "query: "), strict=True):
        prompts = {"prompts": {"query": query, "document": ""}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    found = compare(folders["base"], folders["law"], cache)
    assert found.problems == []
    assert 'its prompts are {"query": "query: "}, the base\'s {}' in found.warnings[0]


def test_models_without_modules_have_nothing_to_compare(write_model: Any, cache: ResultCache):
    assert compare(write_model("base"), write_model("law"), cache) == Findings()
