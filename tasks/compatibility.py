"""Can two checkpoints be merged at all? Answered from their headers, before a weight is read."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tasks.tensors import FLOAT_DTYPES, TensorView

MAX_LISTED = 10
"""Mismatches of one candidate that are written out; models of two architectures differ in hundreds."""

# transformers 4 keeps a tensor for each expert of a layer, transformers 5 one for all of them.
_SEPARATE_EXPERT = re.compile(r"\.experts\.\d+\.")
_FUSED_EXPERTS = re.compile(r"\.experts\.(gate_up_proj|down_proj)$")


def tensor_mismatches(
    base: Mapping[str, TensorView],
    candidate: Mapping[str, TensorView],
    base_name: str,
    candidate_name: str,
    any_rows: Collection[str] = (),
) -> list[str]:
    """Say in sentences where a candidate's tensors do not fit the base's; empty when the two can be merged.

    Floating tensors must be the same on both sides, by name and shape; their dtypes may differ. Integer and boolean
    tensors are buffers that the base's are kept of (such as BERT's `embeddings.position_ids`): either side may
    lack one, but where both have it the shape must agree.

    Args:
        base: Full tensor name to view.
        candidate: The same.
        base_name: What messages call the base.
        candidate_name: What messages call the candidate.
        any_rows: Tensors that may differ in their first dimension, as what is merged by token.

    Returns:
        At most `MAX_LISTED` sentences, then one that counts the rest.
    """
    problems: list[str] = []
    if layout := _expert_layouts_differ(base, candidate, base_name, candidate_name):
        problems.append(layout)
        # Said once; without this every expert of every layer would be listed.
        base, candidate = _without_experts(base), _without_experts(candidate)
    problems += _mismatches(base, candidate, base_name, candidate_name, any_rows)
    rest = len(problems) - MAX_LISTED
    if rest <= 0:
        return problems
    noun = "tensor" if rest == 1 else "tensors"
    return [*problems[:MAX_LISTED], f"and {rest} more {noun} of {candidate_name} and {base_name} that do not agree"]


def quantisation_problem(config: Mapping[str, Any], name: str) -> str | None:
    """Say that a checkpoint holds packed numbers, by its config.json; None if it does not.

    Packed weights are stored as integers, which a merge would copy from the base as if they were buffers.
    """
    quantisation = config.get("quantization_config")
    if not quantisation:
        return None
    method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, Mapping) else "unknown"
    return (
        f"{name}: its config.json says that its weights are quantised (quant_method {method}); packed numbers cannot "
        "be averaged, so use the checkpoint in bfloat16, float16 or float32"
    )


def _expert_layouts_differ(
    base: Mapping[str, TensorView], candidate: Mapping[str, TensorView], base_name: str, candidate_name: str
) -> str | None:
    """Say that one side keeps experts apart and the other together; None if both do the same."""
    base_layout, candidate_layout = _expert_layout(base), _expert_layout(candidate)
    if not base_layout or not candidate_layout or base_layout == candidate_layout:
        return None
    return (
        f"experts: {candidate_name} has {candidate_layout}, {base_name} has {base_layout}; load both with the same "
        "version of transformers and save them again"
    )


def _expert_layout(tensors: Mapping[str, TensorView]) -> str | None:
    """How a checkpoint keeps the experts of a layer; None if it has none, or some this way and some that."""
    separate = any(_SEPARATE_EXPERT.search(name) for name in tensors)
    fused = any(_FUSED_EXPERTS.search(name) for name in tensors)
    if separate == fused:
        return None
    return "a tensor for each (transformers 4)" if separate else "those of a layer in one tensor (transformers 5)"


def _without_experts(tensors: Mapping[str, TensorView]) -> dict[str, TensorView]:
    return {
        name: view
        for name, view in tensors.items()
        if not _SEPARATE_EXPERT.search(name) and not _FUSED_EXPERTS.search(name)
    }


def _mismatches(
    base: Mapping[str, TensorView],
    candidate: Mapping[str, TensorView],
    base_name: str,
    candidate_name: str,
    any_rows: Collection[str],
) -> Iterator[str]:
    for name, expected in base.items():
        found = candidate.get(name)
        if found is None:
            if expected.dtype in FLOAT_DTYPES:
                yield f"tensor {name!r}: {candidate_name} lacks it; {base_name} has it with {_describe(expected)}"
        elif _kind(found) != _kind(expected) or not _fits(found.shape, expected.shape, name in any_rows):
            yield (
                f"tensor {name!r}: {candidate_name} has it with {_describe(found)}, "
                f"{base_name} with {_describe(expected)}"
            )
    for name, extra in candidate.items():
        if name not in base and extra.dtype in FLOAT_DTYPES:
            yield f"tensor {name!r}: {candidate_name} has it with {_describe(extra)}; {base_name} lacks it"


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], any_rows: bool) -> bool:
    return shape == expected or (any_rows and len(shape) == len(expected) and shape[1:] == expected[1:])


def _describe(view: TensorView) -> str:
    return f"shape {list(view.shape)} ({_kind(view)}, {view.dtype})"


def _kind(view: TensorView) -> str:
    return "floating" if view.dtype in FLOAT_DTYPES else "integer or boolean"
