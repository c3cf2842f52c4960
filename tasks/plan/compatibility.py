"""Can a candidate be merged with the base? Answered from headers, configs and tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.checkpoint import MODULES_FILE, read_config, read_tensor_views
from tasks.compatibility import tensor_mismatches
from tasks.errors import CheckpointError
from tasks.plan.configuration import architecture_problem, compare_configs, have_one_architecture
from tasks.plan.findings import Findings
from tasks.plan.modules import compare_modules
from tasks.plan.sketch import Sketch
from tasks.plan.vocabulary import compare_tokenizers
from tasks.records import Checkpoint
from tasks.tensors import TensorView


@dataclass(frozen=True, slots=True)
class ModelHeaders:
    """What is known of a model without reading its weights."""

    checkpoint: Checkpoint
    """As it was planned; its files may be elsewhere."""
    folder: Path
    """Where its headers and small files can be read on this machine: the model itself, or a sketch of it."""
    views: Mapping[str, TensorView]
    config: dict[str, Any]
    label: str
    """How messages call it."""
    sketch: Sketch | None = None
    """What brings samples of its weights into `folder`; None for a model that is here."""
    manifest: Path | None = None
    """manifest.json on this machine, if the model has one."""

    @property
    def local(self) -> Checkpoint:
        """The same record with the URI of `folder`, for what reads small files."""
        return replace(self.checkpoint, uri=self.folder.as_uri())

    def explain(self, error: Exception) -> str:
        """The message of an error, with the place that the user knows instead of the sketch's."""
        return str(error).replace(str(self.folder), self.checkpoint.uri) if self.sketch else str(error)


def read_headers(
    checkpoint: Checkpoint, label: str, folder: Path, sketch: Sketch | None = None, manifest: Path | None = None
) -> ModelHeaders:
    """Read a model's headers and config in `folder`.

    Raises:
        CheckpointError: a file is missing, damaged, or holds a dtype that cannot be merged.
    """
    empty = ModelHeaders(checkpoint, folder, {}, {}, label, sketch, manifest)
    try:
        return replace(empty, views=read_tensor_views(folder), config=read_config(folder))
    except CheckpointError as error:
        raise CheckpointError(empty.explain(error)) from error


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
    found.extend(compare_tokenizers(base.local, candidate.local, candidate.label))
    found.extend(compare_modules(base.local, candidate.local, candidate.label))
    return found
