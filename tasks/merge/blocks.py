"""What one thread does: read a block of every source, combine, check, cast, write."""

import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasks.errors import NonFiniteError
from tasks.merge.methods import Combine
from tasks.merge.ranges import open_descriptor, read_range, write_range
from tasks.tensors import DTYPE_BYTES, TensorView

_TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that is read."""

    name: str
    tensors: Mapping[str, TensorView]


@dataclass(frozen=True, slots=True)
class Job:
    """What is merged into what."""

    base: Source
    """Where integer and boolean tensors come from."""
    sources: Sequence[Source]
    """What `combine` gets a block of each, in its order."""
    combine: Combine
    folder: Path
    """Of the output; its files are there with their full size."""
    block_elements: int
    """Elements of a tensor that a thread holds at a time."""


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive elements of one output tensor, the work of one thread for a while."""

    tensor: TensorView
    first: int
    stop: int

    @property
    def n_bytes(self) -> int:
        """Bytes in the output."""
        return (self.stop - self.first) * DTYPE_BYTES[self.tensor.dtype]

    @property
    def start(self) -> int:
        """Offset of the first byte in the output file."""
        return self.tensor.start + self.first * DTYPE_BYTES[self.tensor.dtype]


class Buffers:
    """The memory of one thread, the same for every block."""

    def __init__(self, n_sources: int, block_elements: int, element_bytes: int):
        # Copying an integer tensor compares two blocks, so there are never fewer than two.
        self.inputs = [bytearray(block_elements * element_bytes) for _ in range(max(2, n_sources))]
        self.output = bytearray(block_elements * element_bytes)
        self.sum = bytearray(block_elements * element_bytes)


def merge_range(job: Job, part: Range, buffers: Buffers, cancelled: threading.Event) -> None:
    """Combine a range of a floating tensor block by block.

    Raises:
        NonFiniteError: a source holds NaN or infinity, or the sum overflows the output's dtype.
        CheckpointError: a source's file became shorter.
    """
    views = [source.tensors[part.tensor.name] for source in job.sources]
    dtype = _TORCH_DTYPES[part.tensor.dtype]
    sum_dtype = torch.float64 if any(view.dtype == "F64" for view in views) else torch.float32
    with ExitStack() as files:
        target = files.enter_context(open_descriptor(job.folder / part.tensor.file, os.O_WRONLY))
        descriptors = [files.enter_context(open_descriptor(view.file, os.O_RDONLY)) for view in views]
        for first in range(part.first, part.stop, job.block_elements):
            if cancelled.is_set():
                return
            n_elements = min(job.block_elements, part.stop - first)
            blocks = [
                _read_block(view, descriptor, first, n_elements, buffer)
                for view, descriptor, buffer in zip(views, descriptors, buffers.inputs, strict=False)
            ]
            total = job.combine(blocks, torch.frombuffer(buffers.sum, dtype=sum_dtype, count=n_elements))
            output = torch.frombuffer(buffers.output, dtype=dtype, count=n_elements)
            output.copy_(total)
            if not is_finite(output):
                raise _non_finite_error(part.tensor, job.sources, blocks, total)
            n_bytes = n_elements * output.element_size()
            write_range(target, part.tensor.start + first * output.element_size(), memoryview(buffers.output)[:n_bytes])


def copy_range(job: Job, part: Range, buffers: Buffers) -> list[str]:
    """Copy a range of an integer or boolean tensor from the base.

    Returns:
        Names of the sources that have the tensor with another content.
    """
    view = job.base.tensors[part.tensor.name]
    size = DTYPE_BYTES[view.dtype]
    others = {source.name: source.tensors.get(view.name) for source in job.sources}
    # Not the same dtype (the shape is) means another content, and nothing to compare byte by byte.
    differing = {name for name, other in others.items() if other and other.dtype != view.dtype}
    comparable = {name: other for name, other in others.items() if other and other.dtype == view.dtype}
    with open_descriptor(job.folder / part.tensor.file, os.O_WRONLY) as target:
        step = len(buffers.output) // size
        for first in range(part.first, part.stop, step):
            n_bytes = min(step, part.stop - first) * size
            block, other_block = (memoryview(buffer)[:n_bytes] for buffer in buffers.inputs[:2])
            _read_bytes(view, first * size, block)
            write_range(target, part.tensor.start + first * size, block)
            for name, other in comparable.items():
                _read_bytes(other, first * size, other_block)
                if block != other_block:
                    differing.add(name)
    return sorted(differing)


def is_finite(block: Tensor) -> bool:
    """Whether a block holds neither NaN nor infinity.

    Either shows in the sum, which takes a thirtieth of the time. Only a sum that overflowed says nothing; in
    float32, where float16 numbers are summed, that does not happen.
    """
    total = block.sum(dtype=torch.float32) if block.dtype == torch.float16 else block.sum()
    return math.isfinite(float(total)) or bool(torch.isfinite(block).all())


def _read_block(view: TensorView, descriptor: int, first: int, n_elements: int, buffer: bytearray) -> Tensor:
    size = DTYPE_BYTES[view.dtype]
    read_range(descriptor, view.start + first * size, memoryview(buffer)[: n_elements * size], view.file)
    return torch.frombuffer(buffer, dtype=_TORCH_DTYPES[view.dtype], count=n_elements)


def _read_bytes(view: TensorView, offset: int, buffer: memoryview) -> None:
    with open_descriptor(view.file, os.O_RDONLY) as descriptor:
        read_range(descriptor, view.start + offset, buffer, view.file)


def _non_finite_error(
    tensor: TensorView, sources: Sequence[Source], blocks: Sequence[Tensor], total: Tensor
) -> NonFiniteError:
    guilty = [
        f"{source.name} ({source.tensors[tensor.name].file})"
        for source, block in zip(sources, blocks, strict=True)
        if not bool(torch.isfinite(block).all())
    ]
    if guilty:
        return NonFiniteError(
            f"tensor {tensor.name!r} holds NaN or infinity in {', '.join(guilty)}; a merge would spread it, "
            "so leave that candidate out or train it again"
        )
    largest = float(total.abs().max())
    return NonFiniteError(
        f"tensor {tensor.name!r}: all inputs are finite, but their combination reaches {largest:.3g} and overflows "
        f"{tensor.dtype}; choose smaller merge weights or a dtype with a larger range (merge.dtype)"
    )
