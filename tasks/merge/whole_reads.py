"""A block of every source in one call of the library in C, where all of them lie in files as they are.

Every read of its own takes Python's lock twice, for which the threads of a merge would wait for each other.
"""

import ctypes
from collections.abc import Sequence

from tasks.arithmetic.block import Block
from tasks.arithmetic.library import code_of, load_library
from tasks.merge.sources import FileBlocks, ReadBlock

_READ, _NOT_FINITE = 0, 2


class WholeReads:
    """Blocks of one tensor in several files, read into the same memory again and again."""

    def __init__(self, library: ctypes.CDLL, readers: Sequence[FileBlocks], buffers: Sequence[memoryview]):
        self._library = library
        self._readers = list(readers)
        self._buffers = buffers
        self._descriptors = (ctypes.c_int * len(readers))(*[reader.descriptor for reader in readers])
        self._codes = (ctypes.c_int * len(readers))(*[code_of(reader.dtype) for reader in readers])
        self._starts = (ctypes.c_int64 * len(readers))()
        self._blocks: list[Block] = []

    @classmethod
    def of(cls, readers: Sequence[ReadBlock], buffers: Sequence[memoryview]) -> "WholeReads | None":
        """Reads of all of them; None where the library cannot do that."""
        files = [reader for reader in readers if isinstance(reader, FileBlocks) and code_of(reader.dtype) is not None]
        library = load_library()
        return cls(library, files, buffers) if library and files and len(files) == len(readers) else None

    def read(self, first: int, n_elements: int, looks_for_nan: bool) -> tuple[Sequence[Block], bool] | None:
        """A block of every file.

        Args:
            first: Index of its first element.
            n_elements: Its length.
            looks_for_nan: Whether to say that numbers are finite.

        Returns:
            (n_elements,) each, valid until the next is read, and whether all are finite, if that was asked for; None
            where a file could not be read, as the reader by itself will say.
        """
        if not self._blocks or self._blocks[0].numel() != n_elements:
            self._take(n_elements)
        for index, reader in enumerate(self._readers):
            self._starts[index] = reader.start_of(first)
        answer = self._library.read_blocks(
            len(self._readers), self._descriptors, self._starts, self._sizes, self._addresses,
            self._codes if looks_for_nan else None,
        )  # fmt: skip
        return (self._blocks, answer == _READ) if answer in (_READ, _NOT_FINITE) else None

    def _take(self, n_elements: int) -> None:
        """Use the beginning of every buffer for a block of so many elements."""
        self._blocks = [
            Block(buffer, reader.dtype, n_elements)
            for reader, buffer in zip(self._readers, self._buffers, strict=False)
        ]
        sizes = [len(block.memory) for block in self._blocks]
        self._sizes = (ctypes.c_int64 * len(sizes))(*sizes)
        self._addresses = (ctypes.c_void_p * len(sizes))(*[block.address for block in self._blocks])
