"""Tensors in safetensors files: dtypes, and where every tensor lies.

The header of such a file says names, dtypes, shapes and byte ranges, so everything about a tensor but its numbers is
known without loading it, and its numbers can be read by range.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import CheckpointError

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""safetensors dtype to bytes per element, of the dtypes that we can carry into a merge."""
SAFETENSORS_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Floating dtypes as recipes and config.json write them, to what safetensors calls them."""
FLOAT_DTYPES = frozenset(SAFETENSORS_DTYPES.values())

MAX_HEADER_BYTES = 100_000_000


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


def dtype_in_output(view: TensorView, dtype: str) -> str:
    """safetensors dtype of a tensor in a model that is written in `dtype`.

    Args:
        view: The tensor in the base. Integer and boolean tensors keep their dtype.
        dtype: `float32`, `float16` or `bfloat16`; or `base`: each floating tensor as it is there.
    """
    return view.dtype if dtype == "base" or view.dtype not in FLOAT_DTYPES else SAFETENSORS_DTYPES[dtype]


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


def _parse_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header's entries and the offset at which the tensors' bytes begin."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
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
