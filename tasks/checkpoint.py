"""A checkpoint in a folder: which files it has, where every tensor lies, and what its content is.

Only safetensors are read: their header says names, dtypes, shapes and byte ranges, so everything about a model but its
numbers is known without loading it, and a tensor can be read by range. No library of models is imported here.

A sentence-transformers folder holds several modules, each in a folder of its own; those with weights (a Dense layer,
say) are *components*. A tensor's full name is `component/name`, or `name` for the root component.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import CheckpointError
from tasks.records import Checkpoint, FileDigest

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
MODULES_FILE = "modules.json"

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""safetensors dtype to bytes per element, of the dtypes that we can carry into a merge."""
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})

_MAX_HEADER_BYTES = 100_000_000
# Written by releases and by people about a model; they are no part of what it computes.
_NOTES = frozenset({"README.md", "report.html", "recipe.lock.yaml", "manifest.json", "LICENSE", "NOTICE"})
_NOTE_FOLDERS = frozenset({"evaluation"})
# Weights in forms that we neither read nor merge. A copy of them beside merged safetensors would be another model.
_OTHER_WEIGHTS = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot", ".tflite", ".npz",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorView:
    """Where one tensor lies on disk."""

    name: str
    """Full name, with the component in front where there is one."""
    dtype: str
    """safetensors name: F32, BF16, ..."""
    shape: tuple[int, ...]
    file: Path
    start: int
    """Offset of the first byte in `file`."""
    component: str = ""
    """Folder of the component inside the checkpoint; empty for the root."""

    @property
    def name_in_file(self) -> str:
        """The tensor's name without its component."""
        return self.name.removeprefix(f"{self.component}/") if self.component else self.name

    @property
    def n_elements(self) -> int:
        """Product of the shape; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return self.n_elements * DTYPE_BYTES[self.dtype]


def is_model_file(path: str) -> bool:
    """Whether a file (path inside the checkpoint, with `/`) is part of the model we read, merge and release."""
    parts = path.split("/")
    if any(part.startswith(".") for part in parts) or parts[0] in _NOTE_FOLDERS:
        return False
    return parts[-1] not in _NOTES and not parts[-1].endswith(_OTHER_WEIGHTS)


def is_weight_file(path: str) -> bool:
    """Whether a model file holds tensors or says which file holds them."""
    return path.endswith((".safetensors", ".safetensors.index.json"))


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
    for name in ["", *_module_folders(folder)]:
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


def read_header(file: Path, component: str = "") -> Iterator[TensorView]:
    """The tensors of one safetensors file, in the order of its header.

    Raises:
        CheckpointError: the file is no safetensors, is cut short, or holds a dtype that cannot be merged.
    """
    header, data_start = _parse_header(file)
    file_size = file.stat().st_size
    prefix = f"{component}/" if component else ""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, start, stop = _parse_entry(file, name, entry)
        if dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{file}: tensor {name!r} has dtype {dtype}, which holds quantised or unknown numbers that cannot be "
                "averaged; use the checkpoint in bfloat16, float16 or float32"
            )
        view = TensorView(prefix + name, dtype, shape, file, data_start + start, component)
        if stop - start != view.n_bytes or data_start + stop > file_size:
            raise CheckpointError(
                f"{file}: tensor {name!r} should fill {view.n_bytes} bytes up to {data_start + stop}, but the file "
                f"gives it {stop - start} and ends at {file_size}; it is damaged or its copy was cut short"
            )
        yield view


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


def hash_file(path: Path) -> FileDigest:
    """sha256 and size of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(digest.hexdigest(), file.tell())


def describe_folder(name: str, model: str, folder: Path, files: Mapping[str, FileDigest]) -> Checkpoint:
    """The record of a checkpoint that lies in `folder`, its revision being its content."""
    ordered = {path: files[path] for path in sorted(files)}
    unnamed = Checkpoint(name, model, "", folder.resolve().as_uri(), ordered)
    return Checkpoint(name, model, f"sha256:{unnamed.digest}", unnamed.uri, ordered)


def _parse_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header's entries and the offset at which the tensors' bytes begin."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise CheckpointError(f"{file}: this is no safetensors file (header of {length} bytes)")
            header = json.loads(stream.read(length))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: the shard is missing, though the index names it") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: the safetensors header cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the safetensors header is no JSON object but {type(header).__name__}")
    return header, 8 + length


def _parse_entry(file: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """A header entry's dtype, shape, and offsets of its bytes after the header."""
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, stop)
        if isinstance(dtype, str) and all(isinstance(number, int) and number >= 0 for number in numbers):
            return dtype, shape, start, stop
    except (KeyError, TypeError, ValueError):
        pass
    raise CheckpointError(f"{file}: the safetensors header says of tensor {name!r} what cannot be: {entry!r}")


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


def _module_folders(folder: Path) -> list[str]:
    """Folders of a sentence-transformers model's modules, the root left out."""
    file = folder / MODULES_FILE
    if not file.is_file():
        return []
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        paths = [str(module["path"]) for module in modules if module["path"]]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: this is no list of modules with a path: {error!r}") from error
    # Output is written under the same paths, so they must stay inside the folder.
    if outside := [path for path in paths if path.startswith("/") or ".." in path.split("/")]:
        raise CheckpointError(f"{file}: a module must lie inside the model's folder; found {', '.join(outside)}")
    return list(dict.fromkeys(path.rstrip("/") for path in paths))
