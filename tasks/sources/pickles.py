"""Checkpoints whose weights are pickles, written again as safetensors; only where the recipe says so.

PyTorch reads them with `weights_only=True`: an unpickler that builds tensors and plain containers and runs nothing. A
pickle that asks for anything else is refused.
"""

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.cache import ResultCache
from tasks.checkpoint import INDEX_FILE, SINGLE_FILE, read_json_object
from tasks.digests import hash_file
from tasks.errors import CheckpointError
from tasks.pruning import FILES
from tasks.records import FileDigest
from tasks.sources.fetch import FetchedFile
from tasks.staging import staged, writing

logger = logging.getLogger(__name__)

PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
_PICKLE = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
# Raised when other bytes are written for equal pickles.
_VERSION = 1


def is_pickle(path: str) -> bool:
    """Whether a file is pickled weights that can be converted, or the index of such."""
    name = PurePosixPath(path).name
    return name == PICKLE_INDEX_FILE or _PICKLE.fullmatch(name) is not None


def convert_pickles(files: Mapping[str, Path], cache: ResultCache) -> dict[str, FetchedFile]:
    """Read the pickled weights of one checkpoint, tensors only, and write them as safetensors into the cache.

    Equal pickles are converted once. Memory holds one pickle at a time.

    Args:
        files: Path inside the checkpoint to file, of the pickles and their index (`is_pickle`); others are ignored.
        cache: Where the safetensors are kept.

    Returns:
        `model.safetensors`, or shards and `model.safetensors.index.json`, by path inside the checkpoint: what stands
        in place of the pickles. In folders of their own where the pickles were (modules of sentence-transformers).

    Raises:
        CheckpointError: a pickle holds more than tensors (it was not loaded), is damaged, or there is none.
        StoreError: the cache cannot be written.
    """
    folders: dict[str, dict[str, Path]] = {}
    for path in sorted(filter(is_pickle, files)):
        folders.setdefault(str(PurePosixPath(path).parent), {})[PurePosixPath(path).name] = files[path]
    if not folders:
        raise CheckpointError(f"there are no pickled weights (pytorch_model.bin); found {', '.join(sorted(files))}")
    return {
        str(PurePosixPath(folder) / name): file
        for folder, pickles in folders.items()
        for name, file in _convert_component(pickles, cache).items()
    }


def _convert_component(pickles: Mapping[str, Path], cache: ResultCache) -> dict[str, FetchedFile]:
    """Convert the pickles of one folder, by name."""
    shards = _shards(pickles)
    key = {"version": _VERSION, "pickles": {name: cache.digest_file(path).sha256 for name, path in shards.items()}}
    if (known := cache.get("converted-pickles", key)) is not None:
        digests = {name: FileDigest(**digest) for name, digest in known["files"].items()}
        kept = {name: path for name, digest in digests.items() if (path := cache.find_file(digest))}
        if len(kept) == len(digests):
            return {name: FetchedFile(kept[name], digests[name]) for name in digests}
    converted: dict[str, FetchedFile] = {}
    weight_map: dict[str, str] = {}
    total_size = 0
    with writing(cache.folder), staged(cache.folder / FILES / "pickle") as draft:
        for number, (name, path) in enumerate(shards.items(), start=1):
            goal = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            tensors = _load_tensors(path, name)
            weight_map |= dict.fromkeys(tensors, goal)
            total_size += sum(tensor.nbytes for tensor in tensors.values())
            converted[goal] = _keep_tensors(tensors, draft, cache)
        if len(shards) > 1:
            index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
            draft.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            converted[INDEX_FILE] = _keep(draft, cache)
    value = {name: {"sha256": file.digest.sha256, "size": file.digest.size} for name, file in converted.items()}
    cache.put("converted-pickles", key, {"files": value})
    logger.info("converted %s to %s", ", ".join(shards), ", ".join(converted))
    return converted


def _shards(pickles: Mapping[str, Path]) -> dict[str, Path]:
    """The pickles that hold the weights, by name: the single one, else those that the index names.

    Raises:
        CheckpointError: a shard or the index is missing.
    """
    if "pytorch_model.bin" in pickles:
        return {"pytorch_model.bin": pickles["pytorch_model.bin"]}
    if PICKLE_INDEX_FILE not in pickles:
        raise CheckpointError(
            f"there are shards ({', '.join(pickles)}), but no {PICKLE_INDEX_FILE} that names them all"
        )
    weight_map = read_json_object(pickles[PICKLE_INDEX_FILE]).get("weight_map")
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    missing = [name for name in names if name not in pickles]
    if missing or not names:
        raise CheckpointError(
            f"{PICKLE_INDEX_FILE} names shards that are not there: {', '.join(missing) or 'none at all'}"
        )
    return {name: pickles[name] for name in names}


def _load_tensors(path: Path, name: str) -> dict[str, Any]:
    """The tensors of one pickle, none sharing memory with another, in order of their names.

    Raises:
        CheckpointError: the pickle holds more than tensors, or is damaged.
    """
    import torch

    try:
        # Only PyTorch's present format (a zip archive) can be mapped into memory.
        content: Any = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name} ({path}): this pickle holds more than tensors, or is damaged, and was not loaded; ask its authors "
            "for safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{name} ({path}): this is no pickle of tensors: {error!r}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} ({path}): expected a name for every tensor, found {type(content).__name__}")
    if other := [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise CheckpointError(f"{name} ({path}): expected tensors only; these are none: {', '.join(other)}")
    seen: set[int] = set()
    tensors: dict[str, Any] = {}
    for key in sorted(content):
        tensor = content[key].detach().contiguous()
        # Tied weights, say: both names are kept, each with its own bytes.
        storage = tensor.untyped_storage().data_ptr()
        tensors[str(key)] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return tensors


def _keep_tensors(tensors: Mapping[str, Any], draft: Path, cache: ResultCache) -> FetchedFile:
    from safetensors.torch import save_file

    save_file(dict(tensors), draft, metadata={"format": "pt"})
    return _keep(draft, cache)


def _keep(draft: Path, cache: ResultCache) -> FetchedFile:
    digest = hash_file(draft)
    return FetchedFile(cache.add_file(draft, digest), digest)
