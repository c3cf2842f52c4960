"""A checkpoint in a folder: which files and modules it has, where every tensor lies, and what its content is.

Only safetensors are read, and of them only the headers (`tasks.tensors`). No library of models is imported here.

A sentence-transformers folder holds several modules, each in a folder of its own; those with weights (a Dense layer,
say) are *components*. A tensor's full name is `component/name`, or `name` for the root component.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import CheckpointError
from tasks.records import Checkpoint, FileDigest
from tasks.tensors import TensorView, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
MODULES_FILE = "modules.json"
MIX_FILE = "mix.json"
"""What `flows.mix` writes beside a mixed model: its parts, their losses and weights."""

# Written by releases and by people about a model; they are no part of what it computes.
_NOTES = frozenset({"README.md", "report.html", "recipe.lock.yaml", "manifest.json", "LICENSE", "NOTICE", MIX_FILE})
_NOTE_FOLDERS = frozenset({"evaluation"})
# Weights in forms that we neither read nor merge. A copy of them beside merged safetensors would be another model.
_OTHER_WEIGHTS = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot", ".tflite", ".npz",
)  # fmt: skip


class Module(NamedTuple):
    """A module of a sentence-transformers model, as modules.json lists it."""

    kind: str
    """Name of its class; the Python module around it changes between versions of sentence-transformers."""
    path: str
    """Its folder inside the checkpoint; empty for the root."""


def is_model_file(path: str) -> bool:
    """Whether a file (path inside the checkpoint, with `/`) is part of the model we read, merge and release."""
    parts = path.split("/")
    if any(part.startswith(".") for part in parts) or parts[0] in _NOTE_FOLDERS:
        return False
    return parts[-1] not in _NOTES and not is_other_weight_file(path)


def is_other_weight_file(path: str) -> bool:
    """Whether a file holds weights in a form that is neither read nor merged, such as pickles."""
    return path.endswith(_OTHER_WEIGHTS)


def is_safetensors(path: str) -> bool:
    """Whether a file holds tensors that can be merged."""
    return path.endswith(".safetensors")


def is_weight_file(path: str) -> bool:
    """Whether a model file holds tensors or says which file holds them."""
    return path.endswith((".safetensors", ".safetensors.index.json"))


def other_files(checkpoint: Checkpoint) -> dict[str, FileDigest]:
    """Path to content of every file of a checkpoint that holds no tensors."""
    return {path: file for path, file in checkpoint.files.items() if not is_weight_file(path)}


def list_model_files(folder: Path) -> list[str]:
    """Paths of the model's files inside `folder`, with `/`, sorted.

    Raises:
        CheckpointError: there is no such folder, or it holds no checkpoint.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a checkpoint with {CONFIG_FILE} and safetensors")
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = sorted(path for path in paths if is_model_file(path))
    if CONFIG_FILE not in files:
        raise CheckpointError(f"{folder}: there is no {CONFIG_FILE}; is this a checkpoint in Hugging Face layout?")
    return files


def weight_files(folder: Path) -> dict[str, list[Path]]:
    """Component (`""` for the root) to its safetensors files, in the order of their names.

    Raises:
        CheckpointError: a component's weights are not in safetensors, or its index is damaged.
    """
    components: dict[str, list[Path]] = {}
    for name in dict.fromkeys(["", *(module.path for module in read_modules(folder))]):
        files = _component_files(folder / name)
        unreadable = [] if files else _weights_of_other_forms(folder / name, deep=name != "")
        if unreadable or not (files or name):
            found = f"found only {', '.join(unreadable)}" if unreadable else "found none"
            raise CheckpointError(
                f"{folder / name}: expected {SINGLE_FILE} or {INDEX_FILE}, {found}; only safetensors in this place "
                "are read (a pickle can run code), so save the model again with "
                "save_pretrained(folder, safe_serialization=True)"
            )
        if files:
            components[name] = files
    return components


def read_tensor_views(folder: Path) -> dict[str, TensorView]:
    """Full tensor name to where it lies, over all components and shards, in the order of component and name.

    Raises:
        CheckpointError: a file is missing, cut short or no safetensors; a tensor stands in two shards.
    """
    views: dict[str, TensorView] = {}
    for component, files in weight_files(folder).items():
        found: dict[str, TensorView] = {}
        for file in files:
            for view in read_header(file, component):
                if view.name in found:
                    raise CheckpointError(f"{file}: tensor {view.name!r} is also in {found[view.name].file.name}")
                found[view.name] = view
        views.update(sorted(found.items()))
    return views


def read_modules(folder: Path) -> list[Module]:
    """The modules of a sentence-transformers model, in order; none if the folder has no modules.json.

    Raises:
        CheckpointError: the file is damaged, or a module lies outside the folder.
    """
    file = folder / MODULES_FILE
    if not file.is_file():
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        modules = [Module(str(entry.get("type")).rpartition(".")[-1], str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: this is no list of modules with a path: {error!r}") from error
    # Output is written under the same paths, so they must stay inside the folder.
    paths = [module.path for module in modules]
    if outside := [path for path in paths if path.startswith("/") or ".." in path.split("/")]:
        raise CheckpointError(f"{file}: a module must lie inside the model's folder; found {', '.join(outside)}")
    return [module._replace(path=module.path.rstrip("/")) for module in modules]


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    return read_json_object(folder / CONFIG_FILE)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object.

    Raises:
        CheckpointError: it is missing, no JSON, or something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: this is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def describe_folder(name: str, model: str, folder: Path, files: Mapping[str, FileDigest]) -> Checkpoint:
    """The record of a checkpoint that lies in `folder`, its revision being its content."""
    ordered = {path: files[path] for path in sorted(files)}
    unnamed = Checkpoint(name, model, "", folder.resolve().as_uri(), ordered)
    return Checkpoint(name, model, f"sha256:{unnamed.digest}", unnamed.uri, ordered)


def _component_files(folder: Path) -> list[Path]:
    # Both are there when a folder was saved into twice; transformers, too, then loads the single file.
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        return []
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_plain_name(name) for name in weight_map.values()):
        raise CheckpointError(f"{index}: expected weight_map to say for every tensor which file beside it has it")
    return [folder / name for name in sorted(set(weight_map.values()))]


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name


def _weights_of_other_forms(folder: Path, deep: bool) -> list[str]:
    """Weights in `folder` (and the folders in it) that cannot be read, by path inside it."""
    endings = (*_OTHER_WEIGHTS, ".safetensors")
    files = folder.rglob("*") if deep else folder.glob("*")
    return sorted(file.relative_to(folder).as_posix() for file in files if file.name.endswith(endings))
