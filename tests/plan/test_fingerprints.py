import json
from dataclasses import replace
from typing import Any

import pytest

from tasks.night_records import Plan
from tasks.plan.fingerprints import decision_fingerprint, model_fingerprint, with_fingerprints
from tasks.recipe import Recipe
from tasks.records import Checkpoint, ExampleSet, FileDigest

ROWS = [{"input": "is it", "output": "yes"}]


def model(name: str, content: str, folder: str = "/models") -> Checkpoint:
    files = {"model.safetensors": FileDigest(content * 64, 8)}
    return Checkpoint(name, f"{folder}/{name}", "", f"file://{folder}/{name}", files)


def recipe(**sections: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "demo",
        "model_type": "decoder",
        "base": "/models/base",
        "candidates": [{"name": "news", "model": "/models/news", "role": "target"}, {"name": "law", "model": "/m/law"}],
        "examples": ROWS,
        "weigh": {"strategy": "loss", "alpha": 0.5},
        "evaluate": [{"name": "mmlu", "kind": "classification", "data": "/data/mmlu.jsonl"}],
        "gate": {"rules": [{"task": "mmlu", "min_delta": 0.0}]},
        "publish": {"to": ["/releases"]},
    }
    return Recipe.model_validate(content | sections)


PLAN = Plan(
    base=model("base", "a"),
    candidates=(model("news", "b"), model("law", "c")),
    examples=ExampleSet("file:///examples.jsonl", "1" * 64, 1),
    evaluation_data={"mmlu": ExampleSet("file:///data/mmlu.jsonl", "2" * 64, 5)},
    champion=None,
    champion_version=None,
    anchors=(),
    model_fingerprint="",
    decision_fingerprint="",
    bytes_to_read=0,
    bytes_to_write=0,
)
SAME = recipe()


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"score": {"batch_tokens": 17, "devices": ["cpu:0"], "timeout_seconds": 5}},
        {"publish": {"to": ["/elsewhere"], "alias": "stable", "keep": 3}},
        {"publish": None},
        {"merge": {"max_shard_size": "5000MB"}},
        {"merge": {"device": "auto"}},
        {"examples": "/elsewhere/examples.jsonl"},
        {"allow_drift": True, "base_digest": "sha256:12", "examples_sha256": "1" * 64},
    ],
    ids=lambda sections: "+".join(sections),
)
def test_what_changes_neither_bytes_nor_judgement_changes_no_fingerprint(sections: dict[str, Any]):
    assert model_fingerprint(recipe(**sections), PLAN) == model_fingerprint(SAME, PLAN)
    assert decision_fingerprint(recipe(**sections), PLAN) == decision_fingerprint(SAME, PLAN)


def test_paths_and_names_of_folders_change_no_fingerprint():
    elsewhere = replace(
        PLAN,
        base=model("base", "a", "/mnt"),
        candidates=(model("news", "b", "/mnt"), model("law", "c", "/mnt")),
        evaluation_data={"mmlu": ExampleSet("file:///mnt/mmlu.jsonl", "2" * 64, 5)},
        warnings=("hm",),
    )
    assert with_fingerprints(SAME, elsewhere).decision_fingerprint == decision_fingerprint(SAME, PLAN)


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "command", "command": ["/FOLDER/measure", "{model}"]},
        {"kind": "lm_eval", "tasks": ["mmlu"], "include_path": "/FOLDER/files"},
    ],
)
def test_programs_and_task_files_count_by_their_content_not_by_where_they_lie(told: dict[str, Any]):
    first, second = (
        recipe(evaluate=[json.loads(json.dumps({"name": "mmlu", **told}).replace("FOLDER", folder))])
        for folder in ("a", "b")
    )
    assert decision_fingerprint(first, PLAN) == decision_fingerprint(second, PLAN) != decision_fingerprint(SAME, PLAN)


@pytest.mark.parametrize(
    "sections",
    [
        {"score": {"max_length": 17}},
        {"score": {"dtype": "bfloat16"}},
        {"weigh": {"strategy": "loss", "alpha": 0.4}},
        {"weigh": {"strategy": "loss", "alpha": 0.5, "temperature": 1.0}},
        {"merge": {"dtype": "bfloat16"}},
        {"merge": {"max_shard_size": "1MB"}},
    ],
    ids=str,
)
def test_settings_that_change_the_model_change_both_fingerprints(sections: dict[str, Any]):
    assert model_fingerprint(recipe(**sections), PLAN) != model_fingerprint(SAME, PLAN)
    assert decision_fingerprint(recipe(**sections), PLAN) != decision_fingerprint(SAME, PLAN)


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, base=model("base", "d")),
        replace(PLAN, candidates=PLAN.candidates[:1]),
        replace(PLAN, candidates=(model("news", "d"), PLAN.candidates[1])),
        replace(PLAN, candidates=PLAN.candidates[::-1]),
        replace(PLAN, examples=ExampleSet("file:///examples.jsonl", "3" * 64, 1)),
    ],
    ids=["base", "left out", "another candidate", "another order", "examples"],
)
def test_inputs_change_the_model_fingerprint(plan: Plan):
    assert model_fingerprint(SAME, plan) != model_fingerprint(SAME, PLAN)


def test_given_weights_and_omegas_belong_to_the_model():
    def given(**weigh: Any) -> str:
        candidates = [{"name": name, "model": f"/models/{name}"} for name in ("news", "law")]
        return model_fingerprint(recipe(candidates=candidates, weigh=weigh), PLAN)

    half = given(strategy="given", weights={"news": 0.5, "law": 0.5})
    assert half == given(strategy="given", weights={"law": 0.5, "news": 0.5})
    assert half != given(strategy="given", weights={"news": 0.4, "law": 0.6})
    assert half != given(strategy="uniform")

    def added(omega: float, scale: float) -> str:
        candidates = [{"name": name, "model": "/m", "role": "skill", "omega": omega} for name in ("news", "law")]
        merge = {"method": "task_arithmetic", "parameters": {"lambda": scale}}
        return model_fingerprint(recipe(candidates=candidates, weigh={"strategy": "given"}, merge=merge), PLAN)

    assert len({added(0.5, 1.0), added(0.6, 1.0), added(0.5, 0.9)}) == 3


def test_examples_and_scoring_say_nothing_where_nothing_is_scored():
    uniform = {
        "candidates": [{"name": name, "model": "/m"} for name in ("news", "law")],
        "weigh": {"strategy": "uniform"},
    }
    scored = recipe(**uniform, score={"max_length": 99})
    assert model_fingerprint(scored, replace(PLAN, examples=None)) == model_fingerprint(recipe(**uniform), PLAN)
    # But the evaluation runs with these settings, too.
    assert decision_fingerprint(scored, PLAN) != decision_fingerprint(recipe(**uniform), PLAN)


@pytest.mark.parametrize(
    ("sections", "changes"),
    [
        ({}, {"champion_version": "20260101-0123456789ab"}),
        ({}, {"evaluation_data": {"mmlu": ExampleSet("file:///data/mmlu.jsonl", "4" * 64, 5)}}),
        ({"gate": {"rules": [{"task": "mmlu", "min_delta": 0.1}]}}, {}),
    ],
    ids=["champion", "data", "rule"],
)
def test_what_is_asked_changes_the_decision_but_not_the_model(sections: dict[str, Any], changes: dict[str, Any]):
    plan = replace(PLAN, **changes)
    assert decision_fingerprint(recipe(**sections), plan) != decision_fingerprint(SAME, PLAN)
    assert model_fingerprint(recipe(**sections), plan) == model_fingerprint(SAME, PLAN)


def test_a_release_that_a_rule_names_counts_by_content_not_by_alias():
    def asked(against: str, content: str) -> str:
        rules = [{"task": "mmlu", "against": against, "max_regression": 0.1}]
        plan = replace(PLAN, anchors=(replace(model("x", content), name=against),))
        return decision_fingerprint(recipe(gate={"rules": rules}), plan)

    stable, version = "release:/releases/demo@stable", "release:/mnt/demo@20260101-0123456789ab"
    assert asked(stable, "d") == asked(version, "d") != asked(stable, "e")


def test_a_fingerprint_is_64_hex_digits_and_stays_as_it_is():
    # Pinned: if this changes, every night builds its model again. Raise ENGINE_VERSION only when bytes change.
    assert model_fingerprint(SAME, PLAN) == "611ba3283eb8e93799733b38c9e922b6432f1a4e17a7946ee2d15abb5342c333"


def test_sizes_of_training_data_count_where_they_decide_the_weights():
    def sized(strategy: str, *sizes: int) -> str:
        names = ("news", "law")
        candidates = [
            {"name": name, "model": f"/m/{name}", "train_size": size} for name, size in zip(names, sizes, strict=True)
        ]
        return model_fingerprint(recipe(candidates=candidates, weigh={"strategy": strategy}), PLAN)

    assert sized("data_size", 1, 3) != sized("data_size", 1, 2)
    assert sized("uniform", 1, 3) == sized("uniform", 1, 2)


def told(method: str = "ties", own: dict[str, Any] | None = None, base: str | None = "/b", **merge: Any) -> str:
    candidates = [{"name": "news", "model": "/m", "parameters": own}, {"name": "law", "model": "/m"}]
    uniform = {"strategy": "uniform"}
    return model_fingerprint(
        recipe(base=base, candidates=candidates, weigh=uniform, merge={"method": method, **merge}), PLAN
    )


def test_writing_a_default_changes_no_fingerprint():
    assert told() == told(parameters={"lambda": 1, "normalize": True, "density": 1.0}, seed=0, embeddings=None)
    assert told() == told(own={"density": 1})
    # In whichever place it is written.
    assert told(parameters={"density": 0.5}, own={"density": 1}) != told()
    both = [{"name": name, "model": "/m", "parameters": {"density": 0.5}} for name in ("news", "law")]
    apart = recipe(candidates=both, weigh={"strategy": "uniform"}, merge={"method": "ties"}, base="/b")
    assert model_fingerprint(apart, PLAN) == told(parameters={"density": 0.5})


@pytest.mark.parametrize(
    "change",
    [
        {"method": "dare_ties"},
        {"parameters": {"lambda": 0.5}},
        {"parameters": {"lambda": [0.5, 1]}},
        {"parameters": {"normalize": False}},
        {"own": {"density": 0.5}},
        {"seed": 1},
        {"embeddings": "union"},
    ],
    ids=str,
)
def test_method_parameters_seed_and_vocabulary_belong_to_the_model(change: dict[str, Any]):
    assert told(**change) != told()


def test_a_base_that_is_named_counts_where_the_method_may_go_without():
    assert told("slerp") != told("slerp", base=None)
    assert told("linear") == told("linear", base=None)


def test_layered_weights_count_as_they_are_written():
    def given(*weights: Any) -> str:
        candidates = [{"name": name, "model": "/m"} for name in ("news", "law")]
        weigh = {"strategy": "given", "weights": dict(zip(("news", "law"), weights, strict=True))}
        return model_fingerprint(recipe(candidates=candidates, weigh=weigh), PLAN)

    assert given([0, 1], [1, 0]) == given([0.0, 1.0], [1.0, 0.0])
    assert len({given([0, 1], [1, 0]), given([1, 0], [0, 1]), given(0.5, 0.5)}) == 3


def test_a_lock_file_with_the_temperature_that_was_found_has_the_recipes_fingerprint():
    peers = [{"name": name, "model": f"/models/{name}"} for name in ("news", "law")]
    auto = {"strategy": "loss", "temperature": "auto", "effective_models": 1.5}
    prints = {
        model_fingerprint(recipe(candidates=peers, weigh=auto | more), PLAN)
        for more in ({}, {"found_temperature": 0.7}, {"compare": False})
    }
    assert len(prints) == 1
    assert model_fingerprint(recipe(candidates=peers, weigh=auto | {"effective_models": 1.6}), PLAN) not in prints


def test_what_a_sweep_is_told_changes_the_fingerprint():
    general = {"examples": ROWS, "max_loss_increase": 0.1}
    told = PLAN, replace(PLAN, general_examples=ExampleSet("file:///g.jsonl", "4" * 64, 1))
    variants: list[dict[str, Any]] = [{}, {"grid": [0.0, 1.0]}, {"general": general}]
    prints = [
        model_fingerprint(recipe(weigh={"strategy": "sweep"} | more), told["general" in more]) for more in variants
    ]
    prints.append(
        model_fingerprint(recipe(weigh={"strategy": "sweep", "general": general | {"max_loss_increase": 0.2}}), told[1])
    )
    assert len(set(prints)) == 4
