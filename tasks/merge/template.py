"""The files of a checkpoint that hold no tensors: config, tokenizer, what sentence-transformers needs."""

import hashlib
import json
import os
from collections.abc import Set
from pathlib import Path

from tasks.checkpoint import CONFIG_FILE, is_weight_file, read_config
from tasks.errors import CheckpointError
from tasks.records import Checkpoint, FileDigest

_CHUNK_BYTES = 1 << 20
_CONFIG_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def other_files(template: Checkpoint) -> dict[str, FileDigest]:
    """Path to content of every file of the template that holds no tensors."""
    return {path: file for path, file in template.files.items() if not is_weight_file(path)}


def copy_other_files(template: Checkpoint, float_dtypes: Set[str], folder: Path) -> dict[str, FileDigest]:
    """Copy everything but tensors byte for byte; config.json follows the output's dtype.

    Args:
        template: Where the files come from.
        float_dtypes: safetensors dtypes of the output's floating tensors; if there is one, config.json names it.
        folder: Of the output.

    Returns:
        Path inside the checkpoint to what was written.

    Raises:
        CheckpointError: a file is no longer what the template's record says.
    """
    written: dict[str, FileDigest] = {}
    for path, expected in other_files(template).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        written[path] = _copy(template.folder / path, target)
        if written[path] != expected:
            raise CheckpointError(
                f"{template.folder / path}: the file changed since {template.name} was read; expected sha256 "
                f"{expected.sha256}, found {written[path].sha256}"
            )
    if config := config_with_dtype(template, float_dtypes):
        written[CONFIG_FILE] = write_file(folder / CONFIG_FILE, config)
    return written


def config_with_dtype(template: Checkpoint, float_dtypes: Set[str]) -> bytes | None:
    """The template's config.json with the output's dtype in it; None if it says so already, or names none."""
    config = read_config(template.folder)
    # transformers 5 writes dtype; older versions wrote torch_dtype.
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    dtypes = {_CONFIG_NAMES[dtype] for dtype in float_dtypes}
    if len(dtypes) != 1 or all({config[key]} == dtypes for key in keys):
        return None
    (dtype,) = dtypes
    changed = {**config, **dict.fromkeys(keys, dtype)}
    return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()


def write_file(target: Path, content: bytes) -> FileDigest:
    """Write a small file and bring it to disk."""
    with target.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return FileDigest(hashlib.sha256(content).hexdigest(), len(content))


def _copy(source: Path, target: Path) -> FileDigest:
    sha256 = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            sha256.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
        return FileDigest(sha256.hexdigest(), writer.tell())
