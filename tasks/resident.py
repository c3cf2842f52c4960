"""One module per device: load a checkpoint into it, and the next one over it.

Building a module costs more than reading its numbers. Candidates of one base differ in nothing but numbers, so the
tensors of the next one are copied into the parameters of the module that is there: no second initialisation, no
second copy in memory. That is done only where it is known to give what a fresh load gives; anything else is loaded
by transformers or sentence-transformers, after the old module was freed. All model types share this slot of a device.
"""

import gc
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tasks.checkpoint import MODULES_FILE, is_weight_file, list_model_files, read_tensor_views
from tasks.errors import CheckpointError
from tasks.loading import Kind, load_module
from tasks.lora.adapted import read_adapted_tensors
from tasks.lora.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from tasks.tensors import TensorView

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResidentModel:
    """A model of transformers on a device, ready to be called, with its fast tokenizer."""

    model: Any
    tokenizer: Any
    device: str
    folder: Path
    """The checkpoint whose tensors are in `model` now."""


@dataclass(slots=True)
class _Slot:
    kind: Kind
    dtype: str
    skeleton: str
    files: tuple[tuple[str, int, int, int], ...]
    folder: Path
    module: Any
    tokenizer: Any = None
    is_proven: bool = False
    """Whether the files' tensors, name by name, were seen to be what a fresh load put into `module`."""


_slots: dict[str, _Slot] = {}


def resident_model(kind: Kind, folder: Path, dtype: str, device: str, adapter: Path | None = None) -> ResidentModel:
    """The model of a folder, on a device.

    The module is shared: it holds this checkpoint until the next call for the same device.

    Args:
        kind: What it is loaded as; an encoder is a sentence embedder and has its own function below.
        folder: A checkpoint in Hugging Face layout; its files are read, none of its code is run.
        dtype: `float32`, `float16` or `bfloat16`, whatever the files hold.
        device: As torch calls it.
        adapter: A folder of PEFT whose LoRA is added to the checkpoint on the way into the module; nothing is written.

    Raises:
        CheckpointError: the folder cannot be loaded, lacks tensors of the model, or has no fast tokenizer; or the
            adapter is not for it.
        DeviceError: the device's memory is too small.
    """
    slot = _occupy(kind, folder, dtype, device, adapter)
    return ResidentModel(slot.module, slot.tokenizer, device, folder)


def resident_decoder(folder: Path, dtype: str, device: str, adapter: Path | None = None) -> ResidentModel:
    """The causal language model of a folder; see `resident_model`."""
    return resident_model("decoder", folder, dtype, device, adapter)


def resident_encoder(folder: Path, dtype: str, device: str, adapter: Path | None = None) -> "SentenceTransformer":
    """The sentence embedder of a folder, on a device, with the pooling, prompts and further modules that it brings.

    A folder without modules.json is a bare transformer: sentence-transformers adds mean pooling, and we say so.
    Arguments and errors are those of `resident_model`.
    """
    if not (folder / MODULES_FILE).is_file():
        logger.warning("%s: there is no %s, so mean pooling of the token vectors is assumed", folder, MODULES_FILE)
    return _occupy("encoder", folder, dtype, device, adapter).module


def forget(device: str) -> None:
    """Free the device's module; also the way to give up one whose numbers were changed in place."""
    if _slots.pop(device, None) is not None:
        _collect(device)


def _occupy(kind: Kind, folder: Path, dtype: str, device: str, adapter: Path | None) -> _Slot:
    """The device's slot with the checkpoint in it. Whatever fails on the way, no half-loaded module stays behind."""
    skeleton, files = _hash_skeleton(folder), _stamp_files(folder, adapter)
    slot = _slots.pop(device, None)
    if slot is not None and (slot.kind, slot.dtype, slot.skeleton) == (kind, dtype, skeleton):
        if slot.files == files or _stream(slot, folder, adapter):
            slot.folder, slot.files = folder, files
            _slots[device] = slot
            return slot
    if slot is not None:
        del slot  # the old module goes before the new one comes
        _collect(device)
    module, tokenizer = load_module(kind, folder, dtype, device)
    slot = _Slot(kind, dtype, skeleton, files, folder, module, tokenizer)
    if adapter is not None and not _stream(slot, folder, adapter):
        raise CheckpointError(
            f"{folder}: transformers changes tensors of this architecture while it loads them, so that {adapter} "
            "cannot be added on the way; merge the adapter with PEFT (merge_and_unload) and name the result as a model"
        )
    _slots[device] = slot
    return slot


def _collect(device: str) -> None:
    # Modules and their configurations refer to each other in circles.
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _hash_skeleton(folder: Path) -> str:
    """Digest of everything about a checkpoint but its numbers: configuration, tokenizer, pooling, prompts."""
    digest = hashlib.sha256()
    for path in list_model_files(folder):
        if not is_weight_file(path):
            content = (folder / path).read_bytes()
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _stamp_files(folder: Path, adapter: Path | None) -> tuple[tuple[str, int, int, int], ...]:
    """Path, inode, size and modification time: the same stamp means the same content."""
    files = [(folder / path).resolve() for path in list_model_files(folder)]
    if adapter is not None:
        own = (adapter / name for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE))
        files += [file.resolve() for file in own if file.is_file()]  # one that is missing is named when it is read
    return tuple((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat()))


def _stream(slot: _Slot, folder: Path, adapter: Path | None) -> bool:
    """Copy a checkpoint's tensors into the slot's module; False, and nothing changed, where that is not safe.

    All of them are copied with an adapter, too: what the module held before, with another adapter or none, is gone.
    """
    places, views = _places(slot, folder), read_tensor_views(folder)
    if not _fills_exactly(views, places, slot.module) or not _prove(slot, places):
        return False
    logger.debug("%s: streaming %d tensors over %s", folder, len(views), slot.folder)
    tensors = _read_tensors(views) if adapter is None else read_adapted_tensors(folder, adapter)
    with torch.no_grad():
        for name, tensor in tensors:
            places[name].copy_(tensor)
    return True


def _places(slot: _Slot, folder: Path) -> dict[str, Tensor]:
    """Full tensor name, as `tasks.checkpoint` gives it, to the parameter or buffer that holds it."""
    return {
        f"{component}/{name}" if component else name: tensor
        for component, module in _components(slot, folder).items()
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def _components(slot: _Slot, folder: Path) -> dict[str, nn.Module]:
    """Folder inside a checkpoint of this skeleton to the module whose weights lie there."""
    if slot.kind != "encoder":
        return {"": slot.module}
    # A sentence-transformers Transformer wraps the model whose names are in the file; other modules are the model.
    modules = [getattr(module, "auto_model", module) for module in slot.module]
    file = folder / MODULES_FILE
    paths = [entry["path"] for entry in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else [""]
    return {path.rstrip("/"): module for path, module in zip(paths, modules, strict=False)}


def _fills_exactly(views: Mapping[str, TensorView], places: Mapping[str, Tensor], module: nn.Module) -> bool:
    """Whether the files hold every number of the module once: tied tensors under one of their names, no others."""
    storages = {name: tensor.data_ptr() for name, tensor in places.items()}
    all_storages = {tensor.data_ptr() for tensor in module.state_dict().values()}
    filled = [storages.get(name) for name in views]
    return (
        len(set(filled)) == len(filled)
        and set(filled) == all_storages
        and all(tuple(places[name].shape) == view.shape for name, view in views.items())
    )


def _prove(slot: _Slot, places: Mapping[str, Tensor]) -> bool:
    """Whether the loaded checkpoint's files hold, name by name, what the module holds.

    transformers may rename, split or permute tensors of some architectures while it loads them; then the bare copy
    would be wrong. Looked at once per module, when a second checkpoint comes.
    """
    if not slot.is_proven:
        try:
            views = read_tensor_views(slot.folder)
        except CheckpointError:
            return False
        slot.is_proven = _fills_exactly(views, places, slot.module) and all(
            torch.equal(tensor.to(places[name]), places[name]) for name, tensor in _read_tensors(views)
        )
    return slot.is_proven


def _read_tensors(views: Mapping[str, TensorView]) -> Iterator[tuple[str, Tensor]]:
    """Full name and content of every tensor, file by file."""
    for file in dict.fromkeys(view.file for view in views.values()):
        with safe_open(file, framework="pt") as tensors:
            for name, view in views.items():
                if view.file == file:
                    yield name, tensors.get_tensor(view.name_in_file)
