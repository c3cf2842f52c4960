"""Where the tensors of a merge come from: files, or whatever can compute a block of a tensor."""

import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from tasks.arithmetic.block import Block
from tasks.merge.ranges import open_descriptor, read_range
from tasks.tensors import DTYPE_BYTES, TensorView


class ReadBlock(Protocol):
    """Reads blocks of one tensor of one source; used by one thread."""

    def __call__(self, first: int, n_elements: int, buffer: memoryview) -> Block:
        """A block of the flat tensor.

        Args:
            first: Index of its first element.
            n_elements: Its length.
            buffer: Bytes that may be used, at least `n_elements` of the tensor's dtype.

        Returns:
            (n_elements,) in the tensor's dtype, mostly in the buffer; it is used until the buffer is used again.

        Raises:
            CheckpointError: a file became shorter, or cannot be read.
        """
        ...


class TensorSource(Protocol):
    """A checkpoint whose tensors can be read block by block, by several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def describe(self, tensor_name: str) -> TensorView | None:
        """Dtype and shape of a tensor, and a file to name in messages; None where there is no such tensor."""
        ...

    def reading(self, tensor_name: str) -> AbstractContextManager[ReadBlock]:
        """Open what is needed to read a tensor."""
        ...

    def whole_rows(self, tensor_name: str) -> bool:
        """Whether blocks must begin and end with a row, as where a row is computed as a whole."""
        ...

    def stored_bytes(self, tensor_name: str) -> int:
        """Bytes of files that are read for the whole of a tensor that the source has."""
        ...


class FileBlocks:
    """Reads blocks of a tensor that lies in a file as it is."""

    def __init__(self, descriptor: int, view: TensorView):
        self.descriptor = descriptor
        self.dtype = view.dtype
        self._view = view
        self._size = DTYPE_BYTES[view.dtype]

    def start_of(self, element: int) -> int:
        """Where in the file an element begins."""
        return self._view.start + element * self._size

    def __call__(self, first: int, n_elements: int, buffer: memoryview) -> Block:
        """See `ReadBlock`."""
        read_range(self.descriptor, self.start_of(first), buffer[: n_elements * self._size], self._view.file)
        return Block(buffer, self.dtype, n_elements)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A checkpoint on this machine's disk, as it is."""

    name: str
    tensors: Mapping[str, TensorView]

    def describe(self, tensor_name: str) -> TensorView | None:
        """Where a tensor lies; None where there is no such tensor."""
        return self.tensors.get(tensor_name)

    @contextmanager
    def reading(self, tensor_name: str) -> Generator[ReadBlock]:
        """Open the tensor's file."""
        view = self.tensors[tensor_name]
        with open_descriptor(view.file, os.O_RDONLY) as descriptor:
            yield FileBlocks(descriptor, view)

    def whole_rows(self, tensor_name: str) -> bool:
        """Any range of a file can be read."""
        return False

    def stored_bytes(self, tensor_name: str) -> int:
        """Bytes of the tensor."""
        return self.tensors[tensor_name].n_bytes


def describe(source: TensorSource, tensor_name: str) -> TensorView:
    """A tensor that the source must have, as the floating ones that were compared with the base's.

    Raises:
        ValueError: the source lacks it.
    """
    view = source.describe(tensor_name)
    if view is None:
        raise ValueError(f"{source.name} has no tensor {tensor_name!r}")
    return view


def row_length(shape: tuple[int, ...]) -> int:
    """Elements of a row, the last dimension; 1 for a scalar."""
    return shape[-1] if shape else 1


@contextmanager
def reading_anywhere(source: TensorSource, tensor_name: str) -> Generator[ReadBlock]:
    """`source.reading`, also for blocks that begin or end inside a row where the source reads whole rows only.

    A row at the border of two blocks is then read for both. Buffers need two more rows than the block; see
    `extra_elements`.
    """
    with source.reading(tensor_name) as read_rows:
        if not source.whole_rows(tensor_name):
            yield read_rows
            return
        length = row_length(describe(source, tensor_name).shape)

        def read(first: int, n_elements: int, buffer: memoryview) -> Block:
            start = first - first % length
            stop = -(-(first + n_elements) // length) * length
            return read_rows(start, stop - start, buffer)[first - start : first - start + n_elements]

        yield read


def extra_elements(source: TensorSource, tensor_name: str) -> int:
    """How many elements more than the block a buffer of `reading_anywhere` must hold."""
    view = source.describe(tensor_name)
    return 2 * row_length(view.shape) if view and source.whole_rows(tensor_name) else 0
