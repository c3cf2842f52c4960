"""config.json: do a candidate and the base compute the same way, and can the recipe's kind of model be made of them?"""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.plan.findings import BY_TOKEN, Findings, shown

# How it was trained, saved or run, not what it computes. Keys that begin with "_" and any kind of dropout, too.
_NO_STRUCTURE = frozenset({
    "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range", "initializer_factor",
    "gradient_checkpointing", "pretraining_tp", "attn_implementation", "auto_map", "problem_type", "finetuning_task",
    "task_specific_params", "output_attentions", "output_hidden_states", "return_dict", "router_aux_loss_coef",
    "output_router_logits", "rms_norm_add_unit_offset", "unsloth_version", "unsloth_fixed", "name_or_path",
})  # fmt: skip
# Fine-tunes change these with good reason (a chat model ends its turns with another token, another context
# length); the merged model takes the base's.
_BASE_DECIDES = frozenset({
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id",
    "max_position_embeddings", "sliding_window", "use_sliding_window", "max_window_layers", "id2label", "label2id",
})  # fmt: skip
_ARCHITECTURE = ("model_type", "architectures")
_TOKEN_COUNTS = ("vocab_size", "text_config.vocab_size")
# T5WithLMHeadModel is how old checkpoints of T5 call themselves.
_TRANSLATING = ("ForConditionalGeneration", "WithLMHeadModel", "EncoderDecoderModel")


def compare_configs(
    base: Mapping[str, Any], candidate: Mapping[str, Any], label: str, by_token: bool = False
) -> Findings:
    """Compare what both configs say; a key that only one has is a default of another version of transformers.

    Args:
        base: The base's config.json.
        candidate: The candidate's config.json.
        label: How messages call the candidate.
        by_token: Whether the number of tokens may differ.
    """
    found = Findings()
    expected_values, values = _flatten(_modern_rope(base)), _flatten(_modern_rope(candidate))
    common = [key for key in expected_values if key in values]
    differing = [key for key in common if expected_values[key] != values[key] and not _says_nothing(key)]
    # Of another architecture everything differs, and the rest of the list would say nothing new.
    if not have_one_architecture(base, candidate):
        differing = [key for key in differing if key in _ARCHITECTURE]
    for key in differing:
        sentence = f"{label}: config.json says {key} = {shown(values[key])}, the base's {shown(expected_values[key])}"
        if key in _TOKEN_COUNTS:
            found.problems += [] if by_token else [f"{sentence}; {BY_TOKEN}"]
        elif key.split(".")[-1] in _BASE_DECIDES or key.split(".")[0] in _BASE_DECIDES:
            found.warnings.append(f"{sentence}; the merged model takes the base's")
        else:
            found.problems.append(f"{sentence}; only models of one architecture can be merged")
    return found


def have_one_architecture(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Whether both are of one kind as far as both say."""
    return all(base.get(key, candidate.get(key)) == candidate.get(key, base.get(key)) for key in _ARCHITECTURE)


def architecture_problem(config: Mapping[str, Any], model_type: str, has_modules: bool, label: str) -> str | None:
    """Say why a model is not of the recipe's `model_type`; None if it is.

    Args:
        config: The model's config.json.
        model_type: As the recipe says.
        has_modules: Whether it is a sentence-transformers folder (it has a modules.json).
        label: How messages call the model.
    """
    architectures = [str(name) for name in config.get("architectures") or []]
    found = ", ".join(architectures) or "no architectures at all"
    generates = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    translates = config.get("is_encoder_decoder") is True
    if model_type == "reranker":
        return _reranker_problem(config, architectures, label)
    if model_type == "encoder-decoder":
        if translates and any(name.endswith(_TRANSLATING) for name in architectures):
            return None
        found = found if translates else f"{found} without is_encoder_decoder"
        return (
            f"{label}: model_type is encoder-decoder, which needs a ...ForConditionalGeneration such as T5 or BART, "
            f"but config.json says {found}"
        )
    if model_type == "decoder":
        if generates and not translates and not has_modules:
            return None
        found = f"{found} with a modules.json of sentence-transformers" if has_modules else found
        return f"{label}: model_type is decoder, which needs a ...ForCausalLM, but config.json says {found}"
    if has_modules or any(name.endswith(("Model", "ForMaskedLM")) and not generates for name in architectures):
        return None
    return (
        f"{label}: model_type is encoder, which needs a modules.json (sentence-transformers) or an encoder such as "
        f"BertModel, but config.json says {found} and there is no modules.json"
    )


def _reranker_problem(config: Mapping[str, Any], architectures: Sequence[str], label: str) -> str | None:
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        return (
            f"{label}: model_type is reranker, which needs a ...ForSequenceClassification, but config.json says "
            f"{', '.join(architectures) or 'no architectures at all'}"
        )
    # Two labels are what transformers does not write down.
    n_labels = len(config.get("id2label") or (0, 1))
    if n_labels in (1, 2):
        return None
    return f"{label}: model_type is reranker, which has one logit or two, but config.json says {n_labels} labels"


def _says_nothing(key: str) -> bool:
    name = key.split(".")[-1]
    return name in _NO_STRUCTURE or name.startswith("_") or "dropout" in name


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections (`text_config`) as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _modern_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings as transformers 5 writes them; 4 had `rope_theta` and `rope_scaling` side by side."""
    plain = dict(config)
    theta, scaling = plain.pop("rope_theta", None), plain.pop("rope_scaling", None)
    old = {**(scaling or {}), **({"rope_theta": theta} if theta is not None else {})}
    if old and "rope_parameters" not in plain:
        old.setdefault("rope_type", old.pop("type", "default"))
        plain["rope_parameters"] = old
    return plain
