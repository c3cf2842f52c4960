"""Where every byte of the output will be, planned before one is written.

Names, dtypes, shapes, shards and offsets follow from the base's headers alone, so tensors can be written in any order,
by any number of threads, straight to their place.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.checkpoint import INDEX_FILE, SINGLE_FILE
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES, SAFETENSORS_DTYPES, TensorView, dtype_in_output

# What save_pretrained writes; transformers refuses a file that does not say which framework it is for.
_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One safetensors file to be written."""

    path: str
    """Inside the checkpoint, with `/`."""
    header: bytes
    """All that stands before the tensors: length, JSON, padding."""
    tensors: tuple[TensorView, ...]
    """In the order of their bytes, without gaps. `file` is `path`; `start` counts from the beginning of the file."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(tensor.n_bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Layout:
    """All weight files of a checkpoint to be written."""

    files: tuple[OutputFile, ...]
    indexes: dict[str, bytes]
    """Path of each shard index inside the checkpoint, to its content."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all files and indexes."""
        return sum(file.size for file in self.files) + sum(map(len, self.indexes.values()))

    def float_dtypes(self) -> set[str]:
        """safetensors dtypes of the floating tensors of the root component."""
        root = (tensor for file in self.files for tensor in file.tensors if not tensor.component)
        return {tensor.dtype for tensor in root} & FLOAT_DTYPES


def plan_layout(base: Mapping[str, TensorView], dtype: str, max_shard_bytes: int) -> Layout:
    """Lay out a checkpoint with the tensors of `base`.

    Args:
        base: Full tensor name to view; the order of names decides which shard a tensor goes to.
        dtype: Of all floating tensors: float32, float16, bfloat16; or `base`, each as it is there.
        max_shard_bytes: Tensor bytes of one file. A tensor that is larger gets a file of its own.

    Raises:
        ValueError: there is no such dtype.
    """
    if dtype != "base" and dtype not in SAFETENSORS_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected base or one of {', '.join(SAFETENSORS_DTYPES)}")
    components: dict[str, list[TensorView]] = {}
    for view in base.values():
        output = replace(view, dtype=dtype_in_output(view, dtype))
        components.setdefault(view.component, []).append(output)
    files: list[OutputFile] = []
    indexes: dict[str, bytes] = {}
    for component, tensors in components.items():
        shards = _split(tensors, max_shard_bytes)
        names = _shard_names(len(shards))
        component_files = [
            _lay_out_file(_join(component, name), shard) for name, shard in zip(names, shards, strict=True)
        ]
        files += component_files
        if len(shards) > 1:
            indexes[_join(component, INDEX_FILE)] = _index(dict(zip(names, component_files, strict=True)))
    return Layout(tuple(files), indexes)


def _split(tensors: Sequence[TensorView], max_shard_bytes: int) -> list[list[TensorView]]:
    """Fill shard after shard in the order of the tensors."""
    shards: list[list[TensorView]] = [[]]
    room = max_shard_bytes
    for tensor in tensors:
        if shards[-1] and tensor.n_bytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= tensor.n_bytes
    return shards


def _shard_names(n_shards: int) -> list[str]:
    if n_shards == 1:
        return [SINGLE_FILE]
    stem = SINGLE_FILE.removesuffix(".safetensors")
    return [f"{stem}-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)]


def _lay_out_file(path: str, tensors: Sequence[TensorView]) -> OutputFile:
    # Wide elements first, as safetensors writes them: every tensor then begins at a multiple of its element.
    ordered = sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype])
    offsets: list[int] = []
    entries: dict[str, object] = {"__metadata__": _METADATA}
    end = 0
    for tensor in ordered:
        offsets.append(end)
        end += tensor.n_bytes
        entries[tensor.name_in_file] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [offsets[-1], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    placed = (
        replace(tensor, file=Path(path), start=len(header) + offset)
        for tensor, offset in zip(ordered, offsets, strict=True)
    )
    return OutputFile(path, header, tuple(placed))


def _index(files: Mapping[str, OutputFile]) -> bytes:
    weight_map = {tensor.name_in_file: name for name, file in files.items() for tensor in file.tensors}
    total = sum(tensor.n_bytes for file in files.values() for tensor in file.tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()


def _join(component: str, name: str) -> str:
    return f"{component}/{name}" if component else name
