"""adapter_config.json of PEFT: is it plain LoRA, and by how much is each change scaled?

Source: LoRA, https://arxiv.org/abs/2106.09685; rank-stabilised, https://arxiv.org/abs/2312.03732
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import CheckpointError
from tasks.messages import list_lines

# Ways to begin training that leave the base as it was. The others subtract from it what the adapter begins with.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA scales every column of the sum anew",
    "lora_bias": "its biases are part of the change",
    "layer_replication": "it repeats layers that the base has once",
    "target_parameters": "it changes parameters that are no layer of their own",
    "trainable_token_indices": "it replaces single rows of the embeddings",
    "alora_invocation_tokens": "it works on the text after certain tokens only",
    "use_qalora": "it pools the inputs of a layer",
    "use_bdlora": "its matrices are made of blocks",
    "arrow_config": "it chooses between adapters for every token",
    "kasa_config": "it changes the base's singular values",
    "monteclora_config": "it draws from a distribution of adapters",
}
"""Settings that make an adapter something else than a sum, when they are set, and why."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What adapter_config.json says about numbers."""

    rank: int
    alpha: float
    is_rank_stabilised: bool = False
    is_transposed: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])

    def rank_of(self, module: str) -> int:
        """Rank of a module, named as in the model that PEFT wrapped."""
        return _matching(self.rank_pattern, module, self.rank)

    def scaling_of(self, module: str) -> float:
        """What B A of a module is multiplied with: alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised."""
        rank, alpha = self.rank_of(module), _matching(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.is_rank_stabilised else alpha / rank


def read_settings(config: Mapping[str, Any], file: Path) -> LoraSettings:
    """The numbers of an adapter_config.json, of plain LoRA only.

    Raises:
        CheckpointError: it is of another kind, or a number is missing or makes no sense. All of it is listed.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{file}: expected peft_type LORA, found {kind!r}; merge that adapter into its base with PEFT "
            "(merge_and_unload) and name the result as a model"
        )
    problems = [f"{key} = {config[key]!r}: {why}" for key, why in _REFUSED.items() if config.get(key)]
    if (bias := config.get("bias", "none")) != "none":
        problems.append(f"bias = {bias!r}: biases were trained, too")
    init = config.get("init_lora_weights")
    if init not in _PLAIN_INITS:
        problems.append(
            f"init_lora_weights = {init!r}: training may have begun from a changed base; convert the adapter with "
            "PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    problems += _number_problems(config)
    if problems:
        raise CheckpointError(
            f"{file}: this adapter cannot be added to its base as LoRA; merge it with PEFT (merge_and_unload) and name "
            f"the result as a model:{list_lines(problems)}"
        )
    return LoraSettings(
        config["r"],
        config["lora_alpha"],
        bool(config.get("use_rslora")),
        bool(config.get("fan_in_fan_out")),
        config.get("rank_pattern") or {},
        config.get("alpha_pattern") or {},
    )


def _number_problems(config: Mapping[str, Any]) -> Iterator[str]:
    patterns = {key: config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    numbers = {"r": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    for key, pattern in patterns.items():
        if not isinstance(pattern, Mapping):
            yield f"{key}: expected module names and numbers, found {pattern!r}"
            continue
        numbers |= {f"{key}[{name!r}]": number for name, number in pattern.items()}
        for name in pattern:
            try:
                re.compile(name)
            except re.error as error:
                yield f"{key}[{name!r}]: this is no regular expression: {error}"
    for key, number in numbers.items():
        is_rank = key == "r" or key.startswith("rank")
        kinds = int if is_rank else int | float
        if isinstance(number, bool) or not isinstance(number, kinds) or not math.isfinite(number):
            yield f"{key}: expected {'a whole' if is_rank else 'a'} number, found {number!r}"
        elif is_rank and number < 1:
            yield f"{key}: expected a rank of at least 1, found {number}"


def _matching(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The number of the first key that fits the end of a module's name, as PEFT looks it up."""
    return next((number for key, number in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)
