"""What a checkpoint in a folder is besides its numbers, and how to see that its files are still the same."""

import hashlib
from pathlib import Path

from tasks.checkpoint import is_weight_file, list_model_files
from tasks.lora.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE

Stamps = tuple[tuple[str, int, int, int, int], ...]
"""Path, inode, size and both times of change of every file."""


def hash_skeleton(folder: Path) -> str:
    """Digest of everything about a checkpoint but its numbers: configuration, tokenizer, pooling, prompts."""
    digest = hashlib.sha256()
    for path in list_model_files(folder):
        if not is_weight_file(path):
            content = (folder / path).read_bytes()
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def stamp_files(folder: Path, adapter: Path | None) -> Stamps:
    """Of the checkpoint's and the adapter's files: the same stamps mean the same content."""
    files = [(folder / path).resolve() for path in list_model_files(folder)]
    if adapter is not None:
        own = (adapter / name for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE))
        files += [file.resolve() for file in own if file.is_file()]  # one that is missing is named when it is read
    # ctime, too: content that is written in place under its old mtime changes nothing else.
    return tuple(
        (str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for file in files
        if (stat := file.stat())
    )
