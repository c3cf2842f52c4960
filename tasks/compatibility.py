"""Can two checkpoints be merged at all? Answered from their headers, before a weight is read."""

from collections.abc import Iterator, Mapping

from tasks.tensors import FLOAT_DTYPES, TensorView

MAX_LISTED = 10
"""Mismatches of one candidate that are written out; models of two architectures differ in hundreds."""


def tensor_mismatches(
    base: Mapping[str, TensorView], candidate: Mapping[str, TensorView], base_name: str, candidate_name: str
) -> list[str]:
    """Say in sentences where a candidate's tensors do not fit the base's; empty when the two can be merged.

    Floating tensors must be the same on both sides, by name and shape; their dtypes may differ. Integer and boolean
    tensors are buffers that the base's are kept of (such as BERT's `embeddings.position_ids`): either side may
    lack one, but where both have it the shape must agree.

    Returns:
        At most `MAX_LISTED` sentences, then one that counts the rest.
    """
    problems = list(_mismatches(base, candidate, base_name, candidate_name))
    rest = len(problems) - MAX_LISTED
    if rest <= 0:
        return problems
    noun = "tensor" if rest == 1 else "tensors"
    return [*problems[:MAX_LISTED], f"and {rest} more {noun} of {candidate_name} and {base_name} that do not agree"]


def _mismatches(
    base: Mapping[str, TensorView], candidate: Mapping[str, TensorView], base_name: str, candidate_name: str
) -> Iterator[str]:
    for name, expected in base.items():
        found = candidate.get(name)
        if found is None:
            if expected.dtype in FLOAT_DTYPES:
                yield f"tensor {name!r}: {candidate_name} lacks it; {base_name} has it with {_describe(expected)}"
        elif _kind(found) != _kind(expected) or found.shape != expected.shape:
            yield (
                f"tensor {name!r}: {candidate_name} has it with {_describe(found)}, "
                f"{base_name} with {_describe(expected)}"
            )
    for name, extra in candidate.items():
        if name not in base and extra.dtype in FLOAT_DTYPES:
            yield f"tensor {name!r}: {candidate_name} has it with {_describe(extra)}; {base_name} lacks it"


def _describe(view: TensorView) -> str:
    return f"shape {list(view.shape)} ({_kind(view)}, {view.dtype})"


def _kind(view: TensorView) -> str:
    return "floating" if view.dtype in FLOAT_DTYPES else "integer or boolean"
