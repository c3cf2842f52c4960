import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.cache import ResultCache
from tasks.plan.plan import plan_refresh
from tasks.plan.survey import survey_models


def test_a_family_is_accepted_with_its_distances(make_recipe: Any, cache: ResultCache):
    survey = survey_models(make_recipe(), cache)
    assert (survey.findings.problems, survey.findings.warnings, survey.left_out) == ([], [], {})
    assert survey.distances["base"] == 0
    assert survey.distances["news"] == pytest.approx(0.1, rel=0.1)
    assert list(survey.candidates) == ["base", "news", "law"]


def test_a_stranger_of_the_same_config_is_refused(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache
):
    candidates = {**family, "stranger": write_model("stranger", tensors[0](7))}
    (problem,) = survey_models(make_recipe(candidates), cache).findings.problems
    assert problem.startswith("candidate 'stranger': it does not descend from the base: distance 1.4")
    assert problem.endswith("merge only fine-tunes of one base, or set allow_unrelated: true")


def test_a_stranger_is_only_warned_of_when_the_recipe_allows_it(
    make_recipe: Any, write_model: Any, tensors: Any, cache: ResultCache
):
    recipe = make_recipe({"stranger": write_model("stranger", tensors[0](7))}, allow_unrelated=True)
    findings = survey_models(recipe, cache).findings
    assert findings.problems == []
    assert "merged all the same, as allow_unrelated says" in findings.warnings[0]


def test_a_distant_relative_is_warned_of(make_recipe: Any, write_model: Any, tensors: Any, cache: ResultCache):
    random_tensors, fine_tuned = tensors
    recipe = make_recipe({"far": write_model("far", fine_tuned(random_tensors(0), 1, 0.9))})
    findings = survey_models(recipe, cache).findings
    assert findings.problems == []
    assert "candidate 'far': it is far from the base: distance 0.7" in findings.warnings[0]


def test_a_model_without_matrices_is_warned_of(make_recipe: Any, write_model: Any, cache: ResultCache):
    flat = {"scale": np.ones(2000, np.float32)}
    recipe = make_recipe({"flat": write_model("flat", {"scale": flat["scale"] + 1})}, base=str(write_model("b", flat)))
    assert "its descent is unknown" in survey_models(recipe, cache).findings.warnings[0]


def test_nan_is_named_with_tensor_and_candidate(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache
):
    broken = tensors[1](tensors[0](0), 3)
    broken["lm_head.weight"][0, 0] = np.nan
    folder = write_model("broken", broken)
    assert survey_models(make_recipe({"broken": folder}), cache).findings.problems == [
        "candidate 'broken': tensor 'lm_head.weight' holds NaN or infinity; the model is broken"
    ]
    recipe = make_recipe({"news": family["news"]}, base=str(folder))
    assert survey_models(recipe, cache).findings.problems == [
        "the base: tensor 'lm_head.weight' holds NaN or infinity; the model is broken"
    ]


def test_all_offenders_of_all_candidates_are_listed_at_once(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache, tmp_path: Path
):
    narrow = tensors[0](0) | {"lm_head.weight": np.zeros((60, 32), np.float32)}
    damaged = write_model("damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    candidates = {
        "gone": tmp_path / "gone",
        "damaged": damaged,
        "narrow": write_model("narrow", narrow),
        "other": write_model("other", config={"architectures": ["BertModel"], "model_type": "bert"}),
        "words": write_model("words", tensors[1](tensors[0](0), 4), tokens=("[UNK]", "[EOS]", "a")),
        "deep": write_model("deep", tensors[1](tensors[0](0), 5), config={"num_hidden_layers": 3}),
        "news": family["news"],
    }
    found = {
        problem.split(":")[0]: problem for problem in survey_models(make_recipe(candidates), cache).findings.problems
    }
    assert "no such folder" in found["candidate 'gone'"]
    assert "no safetensors file" in found["candidate 'damaged'"]
    assert "tensor 'lm_head.weight': candidate 'narrow' has it with shape [60, 32]" in found["candidate 'narrow'"]
    assert 'architectures = ["BertModel"], the base\'s ["LlamaForCausalLM"]' in found["candidate 'other'"] or (
        'model_type = "bert"' in found["candidate 'other'"]
    )
    assert "tokens of its vocabulary (3 tokens)" in found["candidate 'words'"]
    assert "num_hidden_layers = 3, the base's 2" in found["candidate 'deep'"]
    assert "candidate 'news'" not in found


def test_unsupported_dtypes_are_named(make_recipe: Any, write_model: Any, cache: ResultCache):
    folder = write_model("fp8")
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    (problem,) = survey_models(make_recipe({"fp8": folder}), cache).findings.problems
    assert problem.startswith("candidate 'fp8': ") and "tensor 'w' has dtype F8_E4M3" in problem


def test_a_base_of_another_kind_than_the_recipes_is_named(make_recipe: Any, cache: ResultCache):
    problems = survey_models(make_recipe(model_type="encoder"), cache).findings.problems
    assert problems == [
        "the base: model_type is encoder, which needs a modules.json (sentence-transformers) or an encoder such as "
        "BertModel, but config.json says LlamaForCausalLM and there is no modules.json"
    ]


def test_a_missing_base_is_one_problem(make_recipe: Any, family: dict[str, Path], cache: ResultCache, tmp_path: Path):
    survey = survey_models(make_recipe({"news": family["news"]}, base=str(tmp_path / "gone")), cache)
    assert survey.base is None
    (problem,) = survey.findings.problems
    assert problem.startswith("the base: ") and "no such folder" in problem


def test_pinned_content_of_base_and_candidates_is_checked(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache
):
    recipe = make_recipe({"news": {"model": str(family["news"]), "digest": "sha256:12"}}, base_digest="34")
    problems = survey_models(recipe, cache).findings.problems
    assert "candidate 'news': " in problems[0] and "pins content sha256:12, found sha256:" in problems[0]
    assert "the base: " in problems[1] and "pins content 34, found sha256:" in problems[1]


def test_equal_candidates_are_warned_of(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache
):
    copy = write_model("copy", tensors[1](tensors[0](0), 1), config={"use_cache": False})
    findings = survey_models(make_recipe({**family, "copy": copy}), cache).findings
    assert findings.problems == []
    assert findings.warnings == ["candidates 'news' and 'copy' are one and the same model, which so counts 2 times"]


def test_without_a_base_the_first_candidate_is_the_reference(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache
):
    candidates = {"news": family["news"], "law": family["law"], "far": write_model("far", tensors[0](7))}
    survey = survey_models(make_recipe(candidates, base=None), cache)
    assert survey.base is not None
    assert (survey.base.checkpoint.name, survey.base.checkpoint.folder) == ("base", family["news"])
    assert survey.distances["news"] == 0
    (problem,) = survey.findings.problems
    assert problem.startswith(
        "candidate 'far' (compared with the first candidate, as the recipe names no base): it does"
    )


def test_a_release_of_this_name_is_refused_unless_drift_is_allowed(
    make_recipe: Any, family: dict[str, Path], release: Any, tensors: Any, cache: ResultCache
):
    version = release("demo", tensors[1](tensors[0](0), 8))
    release("other", tensors[1](tensors[0](0), 9))
    candidates = {
        "last": f"release:{release.destination}/demo@champion",
        "folder": release.destination / "demo" / "versions" / version,
        "other": f"release:{release.destination}/other@champion",
    }
    problems = survey_models(make_recipe(candidates), cache).findings.problems
    assert [problem.split(" is itself")[0] for problem in problems] == [
        f"candidate 'last': release:{release.destination}/demo@champion",
        f"candidate 'folder': {candidates['folder']}",
    ]
    assert problems[0].endswith("set allow_drift: true")
    assert survey_models(make_recipe(candidates, allow_drift=True), cache).findings.problems == []


def test_a_manifest_that_is_no_json_is_a_problem_not_a_crash(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache
):
    (family["news"] / "manifest.json").write_text("{")
    (problem,) = survey_models(make_recipe(), cache).findings.problems
    assert problem.startswith("candidate 'news': ") and "manifest.json: this is no JSON" in problem


def test_optional_candidates_that_cannot_be_used_are_left_out_with_the_reason(
    make_recipe: Any, family: dict[str, Path], write_model: Any, tensors: Any, cache: ResultCache, tmp_path: Path
):
    stranger = write_model("stranger", tensors[0](7))
    candidates = {
        **family,
        "gone": {"model": str(tmp_path / "gone"), "optional": True},
        "stranger": {"model": str(stranger), "optional": True},
    }
    survey = survey_models(make_recipe(candidates), cache)
    assert survey.findings.problems == []
    assert list(survey.candidates) == list(survey.distances) == ["base", "news", "law"]
    assert "no such folder" in survey.left_out["gone"]
    assert "does not descend" in survey.left_out["stranger"]


def test_the_share_of_an_optional_candidate_that_is_gone_goes_to_the_others(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache, tmp_path: Path
):
    gone = {"model": str(tmp_path / "gone"), "optional": True}
    weigh = {"strategy": "given", "weights": {"news": 0.2, "law": 0.4, "gone": 0.4}}
    candidates = {name: family[name] for name in ("news", "law")}
    found = plan_refresh(make_recipe({**candidates, "gone": gone}, weigh=weigh), cache)
    assert list(found.left_out) == ["gone"]
    # 0.2 / 0.6 and 0.4 / 0.6: the same model as a recipe (or lock file) that says so makes.
    scaled = {"strategy": "given", "weights": {"news": 0.2 / 0.6, "law": 0.4 / 0.6}}
    same = plan_refresh(make_recipe(candidates, weigh=scaled), cache)
    assert found.model_fingerprint == same.model_fingerprint
    other = {"strategy": "given", "weights": {"news": 0.5, "law": 0.5}}
    assert plan_refresh(make_recipe(candidates, weigh=other), cache).model_fingerprint != same.model_fingerprint


def test_a_recipe_that_needs_its_optional_candidate_is_refused(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache, tmp_path: Path
):
    gone = {"model": str(tmp_path / "gone"), "optional": True}
    weigh = {"strategy": "given", "weights": {"news": 0.0, "gone": 1.0}}
    (problem,) = survey_models(
        make_recipe({"news": family["news"], "gone": gone}, weigh=weigh), cache
    ).findings.problems
    assert problem.startswith("without the optional gone the recipe no longer holds: ")
    assert "these sum to 0" in problem and "no such folder" in problem
    (problem,) = survey_models(make_recipe({"gone": gone}), cache).findings.problems
    assert "at least 1 item" in problem


def test_licences_that_are_not_allowed_are_problems_of_base_and_candidates(
    make_recipe: Any, family: dict[str, Path], cache: ResultCache, tmp_path: Path
):
    (family["news"] / "README.md").write_text("---\nlicense: MIT\n---\n")
    (family["law"] / "README.md").write_text("---\nlicense: llama2\n---\n")
    candidates = {"news": family["news"], "law": {"model": str(family["law"]), "optional": True}}
    publish = {"to": [str(tmp_path / "releases")], "allow_licences": ["mit"]}
    survey = survey_models(make_recipe(candidates, publish=publish), cache)
    assert survey.findings.problems == ["the base: its card states no licence; publish.allow_licences allows mit"]
    assert survey.left_out == {
        "law": "candidate 'law': its card states the licence llama2; publish.allow_licences allows mit"
    }
    assert survey_models(make_recipe(candidates), cache).left_out == {}
