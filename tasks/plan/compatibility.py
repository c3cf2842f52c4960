"""Can a candidate be merged with the base? Answered from headers, configs and tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.checkpoint import MODULES_FILE, read_config, read_tensor_views
from tasks.compatibility import tensor_mismatches
from tasks.plan.configuration import architecture_problem, compare_configs, have_one_architecture
from tasks.plan.findings import Findings
from tasks.plan.modules import compare_modules
from tasks.plan.vocabulary import compare_tokenizers
from tasks.records import Checkpoint
from tasks.tensors import TensorView


@dataclass(frozen=True, slots=True)
class ModelHeaders:
    """What is known of a model without reading its weights."""

    checkpoint: Checkpoint
    views: Mapping[str, TensorView]
    config: dict[str, Any]
    label: str
    """How messages call it."""


def read_headers(checkpoint: Checkpoint, label: str) -> ModelHeaders:
    """Read a model's headers and config.

    Raises:
        CheckpointError: a file is missing, damaged, or holds a dtype that cannot be merged.
    """
    return ModelHeaders(checkpoint, read_tensor_views(checkpoint.folder), read_config(checkpoint.folder), label)


def check_model_type(model: ModelHeaders, model_type: str) -> Findings:
    """Whether the model is of the kind that the recipe says."""
    has_modules = MODULES_FILE in model.checkpoint.files
    problem = architecture_problem(model.config, model_type, has_modules, model.label)
    return Findings([problem] if problem else [])


def check_compatibility(base: ModelHeaders, candidate: ModelHeaders) -> Findings:
    """Compare architecture, tensors, tokenizer and modules of a candidate with the base's.

    Raises:
        CheckpointError: a tokenizer or module file is no JSON.
    """
    found = compare_configs(base.config, candidate.config, candidate.label)
    if not have_one_architecture(base.config, candidate.config):
        # Everything else differs, too, and says nothing more.
        return found
    # A depth or width that differs is said once, not once per tensor.
    if not found.problems:
        mismatches = tensor_mismatches(base.views, candidate.views, base.label, candidate.label)
        found.problems += [f"{candidate.label}: {mismatch}" for mismatch in mismatches]
    found.extend(compare_tokenizers(base.checkpoint, candidate.checkpoint, candidate.label))
    found.extend(compare_modules(base.checkpoint, candidate.checkpoint, candidate.label))
    return found
