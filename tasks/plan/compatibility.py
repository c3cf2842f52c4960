"""Can a candidate be merged with the base? Answered from headers, configs and tokenizers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.checkpoint import MODULES_FILE, read_config, read_tensor_views
from tasks.compatibility import tensor_mismatches
from tasks.errors import CheckpointError
from tasks.plan.adapters import OpenedAdapter
from tasks.plan.configuration import architecture_problem, compare_configs, have_one_architecture
from tasks.plan.findings import Findings
from tasks.plan.modules import compare_modules
from tasks.plan.vocabulary import compare_tokenizers
from tasks.records import Checkpoint
from tasks.sources.sketch import Sketch
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
    adapter: OpenedAdapter | None = None
    """What is added to the tensors in `views`, which are those of the model under it."""

    def with_adapter(self, adapter: OpenedAdapter) -> "ModelHeaders":
        """The same model with an adapter on it."""
        return replace(self, checkpoint=replace(self.checkpoint, adapter=adapter.checkpoint), adapter=adapter)

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


def check_compatibility(
    base: ModelHeaders, candidate: ModelHeaders, by_token: Collection[str] | None = None
) -> Findings:
    """Compare architecture, tensors, tokenizer and modules of a candidate with the base's.

    Args:
        base: What all candidates must fit.
        candidate: One of them.
        by_token: Tensors whose rows are looked up by token, so that tokens and their number may differ; None: the
            candidate must have the base's tokens.

    Raises:
        CheckpointError: a tokenizer or module file is no JSON.
    """
    is_by_token = by_token is not None
    found = compare_configs(base.config, candidate.config, candidate.label, is_by_token)
    if not have_one_architecture(base.config, candidate.config):
        # Everything else differs, too, and says nothing more.
        return found
    # A depth or width that differs is said once, not once per tensor.
    if not found.problems:
        mismatches = tensor_mismatches(base.views, candidate.views, base.label, candidate.label, by_token or ())
        found.problems += [f"{candidate.label}: {mismatch}" for mismatch in mismatches]
    found.extend(compare_tokenizers(base.local, candidate.local, candidate.label, is_by_token))
    found.extend(compare_modules(base.local, candidate.local, candidate.label))
    return found
