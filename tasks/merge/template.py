"""The files of a checkpoint that hold no tensors: config, tokenizer, what sentence-transformers needs."""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.checkpoint import CONFIG_FILE, other_files, read_config
from tasks.errors import CheckpointError
from tasks.records import Checkpoint, FileDigest
from tasks.staging import write_file
from tasks.tensors import SAFETENSORS_DTYPES

_CONFIG_DTYPES = {found: name for name, found in SAFETENSORS_DTYPES.items()}
_NONE: Mapping[str, bytes] = MappingProxyType({})


def copy_other_files(
    template: Checkpoint, float_dtypes: Set[str], folder: Path, changed: Mapping[str, bytes] = _NONE
) -> dict[str, FileDigest]:
    """Copy everything but tensors byte for byte, but for what is changed; config.json follows the output's dtype.

    Args:
        template: Where the files come from.
        float_dtypes: safetensors dtypes of the output's floating tensors; if there is one, config.json names it.
        folder: Of the output.
        changed: Path to content of files that are written in place of the template's, as its tokenizer with more
            tokens.

    Returns:
        Path inside the checkpoint to what was written.

    Raises:
        CheckpointError: a file is no longer what the template's record says.
    """
    written: dict[str, FileDigest] = {}
    for path, expected in other_files(template).items():
        written[path] = write_file(folder / path, template.folder / path)
        if written[path] != expected:
            raise CheckpointError(
                f"{template.folder / path}: the file changed since {template.name} was read; expected sha256 "
                f"{expected.sha256}, found {written[path].sha256}"
            )
    for path, content in changed.items():
        written[path] = write_file(folder / path, content)
    config = json.loads(changed[CONFIG_FILE]) if CONFIG_FILE in changed else read_config(template.folder)
    if with_dtype := _config_with_dtype(config, float_dtypes):
        written[CONFIG_FILE] = write_file(folder / CONFIG_FILE, with_dtype)
    return written


def _config_with_dtype(config: Mapping[str, Any], float_dtypes: Set[str]) -> bytes | None:
    """The same config.json with the output's dtype in it; None if it says so already, or names none."""
    # transformers 5 writes dtype; older versions wrote torch_dtype.
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    dtypes = {_CONFIG_DTYPES[dtype] for dtype in float_dtypes}
    if len(dtypes) != 1 or all({config[key]} == dtypes for key in keys):
        return None
    (dtype,) = dtypes
    changed = {**config, **dict.fromkeys(keys, dtype)}
    return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
