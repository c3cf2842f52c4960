from typing import Any

import pytest

from tasks.plan.configuration import architecture_problem, compare_configs

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}


def compare(base: dict[str, Any], candidate: dict[str, Any]) -> tuple[list[str], list[str]]:
    found = compare_configs(LLAMA | base, LLAMA | candidate, "candidate 'law'")
    return found.problems, found.warnings


def test_a_structural_difference_names_key_and_both_values():
    problems, warnings = compare({"head_dim": 16, "hidden_act": "silu"}, {"head_dim": 8, "hidden_act": "gelu"})
    assert problems == [
        "candidate 'law': config.json says head_dim = 8, the base's 16; only models of one architecture can be merged",
        'candidate \'law\': config.json says hidden_act = "gelu", the base\'s "silu"; only models of one architecture '
        "can be merged",
    ]
    assert not warnings


@pytest.mark.parametrize(
    "key",
    [
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "_name_or_path",
        "attention_dropout",
        "initializer_range",
    ],
)
def test_what_says_nothing_about_the_computation_may_differ(key: str):
    assert compare({key: 1}, {key: 2}) == ([], [])


def test_a_key_that_only_one_side_has_is_a_default_of_another_version():
    assert compare({"mlp_bias": False}, {"head_dim": 16}) == ([], [])


def test_another_end_token_is_a_warning():
    problems, warnings = compare({"eos_token_id": 1}, {"eos_token_id": [1, 2]})
    assert not problems
    assert warnings == [
        "candidate 'law': config.json says eos_token_id = [1, 2], the base's 1; the merged model takes the base's"
    ]


def test_of_another_architecture_only_that_is_said():
    found = compare_configs(LLAMA, {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 1}, "x")
    assert [problem.split(" = ")[0] for problem in found.problems] == [
        "x: config.json says architectures",
        "x: config.json says model_type",
    ]


def test_rotary_settings_of_both_spellings_are_compared():
    new = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    assert compare({"rope_theta": 10000.0, "rope_scaling": None}, new) == ([], [])
    problems, _ = compare({"rope_theta": 500000.0}, new)
    assert "rope_parameters.rope_theta = 10000.0, the base's 500000.0" in problems[0]
    problems, _ = compare({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2}}, new)
    assert 'rope_parameters.rope_type = "default", the base\'s "linear"' in problems[0]


def test_nested_sections_are_compared_by_key():
    problems, _ = compare(
        {"text_config": {"num_layers": 2, "dtype": "a"}}, {"text_config": {"num_layers": 3, "dtype": "b"}}
    )
    assert len(problems) == 1
    assert "text_config.num_layers = 3, the base's 2" in problems[0]


def test_long_values_are_cut():
    problems, _ = compare({"layer_types": ["full"] * 50}, {"layer_types": ["sliding"] * 50})
    assert len(problems[0]) < 300


@pytest.mark.parametrize(
    ("model_type", "architecture", "has_modules"),
    [
        ("decoder", "LlamaForCausalLM", False),
        ("decoder", "GPT2LMHeadModel", False),
        ("encoder", "BertModel", False),
        ("encoder", "BertForMaskedLM", False),
        ("encoder", "BertModel", True),
        ("encoder", "Qwen2ForCausalLM", True),
        ("reranker", "XLMRobertaForSequenceClassification", False),
        ("reranker", "BertForSequenceClassification", True),
    ],
)
def test_models_of_the_recipes_kind_are_accepted(model_type: str, architecture: str, has_modules: bool):
    assert architecture_problem({"architectures": [architecture]}, model_type, has_modules, "the base") is None


@pytest.mark.parametrize(
    ("model_type", "architectures", "has_modules", "text"),
    [
        ("decoder", ["BertModel"], False, "decoder, which needs a ...ForCausalLM, but config.json says BertModel"),
        ("decoder", None, False, "says no architectures at all"),
        ("decoder", ["Qwen2ForCausalLM"], True, "Qwen2ForCausalLM with a modules.json of sentence-transformers"),
        ("encoder", ["LlamaForCausalLM"], False, "LlamaForCausalLM and there is no modules.json"),
        ("encoder", ["GPT2LMHeadModel"], False, "GPT2LMHeadModel and there is no modules.json"),
        ("encoder", ["BertForSequenceClassification"], False, "encoder, which needs a modules.json"),
    ],
)
def test_models_of_another_kind_are_named(
    model_type: str, architectures: list[str] | None, has_modules: bool, text: str
):
    problem = architecture_problem({"architectures": architectures}, model_type, has_modules, "the base")
    assert problem is not None and problem.startswith("the base: ") and text in problem


T5 = {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}


def test_an_encoder_decoder_says_that_it_is_one():
    old = T5 | {"architectures": ["T5WithLMHeadModel"]}
    assert architecture_problem(T5, "encoder-decoder", False, "the base") is None
    assert architecture_problem(old, "encoder-decoder", False, "the base") is None
    assert architecture_problem(old, "decoder", False, "the base") is not None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (LLAMA, "config.json says LlamaForCausalLM without is_encoder_decoder"),
        # Reads pictures and text, but encodes neither for a decoder.
        ({"architectures": ["LlavaForConditionalGeneration"]}, "LlavaForConditionalGeneration without"),
        (T5 | {"architectures": ["T5ForSequenceClassification"]}, "but config.json says T5ForSequenceClassification"),
    ],
)
def test_what_is_no_encoder_decoder_is_named(config: dict[str, Any], text: str):
    problem = architecture_problem(config, "encoder-decoder", False, "the base")
    assert problem is not None and problem.startswith("the base: model_type is encoder-decoder") and text in problem


def test_a_reranker_has_one_logit_or_two():
    config: dict[str, Any] = {"architectures": ["BertForSequenceClassification"]}
    for labels in (["LABEL_0"], ["no", "yes"]):
        labelled = config | {"id2label": dict(enumerate(labels))}
        assert architecture_problem(labelled, "reranker", False, "the base") is None
    problem = architecture_problem(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}, "reranker", False, "the base")
    assert problem == ("the base: model_type is reranker, which has one logit or two, but config.json says 3 labels")
    problem = architecture_problem({"architectures": ["BertModel"]}, "reranker", False, "the base")
    assert problem == (
        "the base: model_type is reranker, which needs a ...ForSequenceClassification, but config.json says BertModel"
    )
