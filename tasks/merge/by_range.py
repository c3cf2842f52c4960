"""Models that are elsewhere, opened for a merge: headers and small files are brought here, numbers are read in ranges.

Ranges are read where they are cheapest: of files that the cache holds, from this machine's disk; of files that machines
share on S3, from there; else from the model's own place, which must say that it still has the content that was planned:
what comes is not hashed, since no whole file comes.
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.arithmetic.block import Block
from tasks.cache import ResultCache
from tasks.checkpoint import is_safetensors
from tasks.errors import CheckpointError
from tasks.merge.job import BLOCK_ELEMENTS, BLOCKS_PER_RANGE
from tasks.merge.sources import ReadBlock, row_length
from tasks.records import Checkpoint, FileDigest
from tasks.sources.fetch import fetch_files, known_digests, link_folder
from tasks.sources.keep import check_unchanged
from tasks.sources.open import open_source
from tasks.sources.sketch import open_sketch
from tasks.sources.source import Source
from tasks.tensors import DTYPE_BYTES, TensorView
from tasks.unchanged import check_models_unchanged

logger = logging.getLogger(__name__)

WINDOW_ELEMENTS = BLOCK_ELEMENTS * BLOCKS_PER_RANGE
"""What one request brings: the blocks that a thread merges before it tells of them. 16 MiB of bfloat16, of the size
that S3 advises (https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html)."""

ReadRange = Callable[[str, int, int], bytes]
"""Path inside the checkpoint, first byte, number of bytes: the bytes. By any thread."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """How the weights of a model are read that are elsewhere."""

    read: ReadRange
    window_elements: int = WINDOW_ELEMENTS
    """What is read at once, so that not every block is a request; 0: exactly what is asked for, as for samples."""


@dataclass(frozen=True, slots=True)
class Located:
    """A checkpoint of which this machine has at least the headers and the small files."""

    checkpoint: Checkpoint
    """Its folder is on this machine; weights in it may be sparse files with nothing but a header."""
    read_range: ReadRange | None = None
    """Reads the weights that are elsewhere; None where the folder has all of them."""


@dataclass(frozen=True, slots=True)
class RangeSource:
    """A `TensorSource` whose files are elsewhere."""

    name: str
    tensors: Mapping[str, TensorView]
    """Their files lie in `folder`, which has the headers alone."""
    folder: Path
    ranges: Ranges

    def describe(self, tensor_name: str) -> TensorView | None:
        """Where a tensor lies; None where there is no such tensor."""
        return self.tensors.get(tensor_name)

    @contextmanager
    def reading(self, tensor_name: str) -> Generator[ReadBlock]:
        """Nothing is asked for before the first block."""
        yield _Window(self, self.tensors[tensor_name]).read

    def whole_rows(self, tensor_name: str) -> bool:
        """Any range of a file can be read."""
        return False

    def stored_bytes(self, tensor_name: str) -> int:
        """Bytes of the tensor."""
        return self.tensors[tensor_name].n_bytes


class _Window:
    """The range of a tensor that came last; blocks are taken out of it. Used by one thread."""

    def __init__(self, source: RangeSource, view: TensorView):
        self._source, self._view = source, view
        self._path = view.file.relative_to(source.folder).as_posix()
        self._element_bytes = DTYPE_BYTES[view.dtype]
        self._begin: int | None = None
        self._first = self._stop = 0
        self._bytes = memoryview(b"")

    def read(self, first: int, n_elements: int, buffer: memoryview) -> Block:
        """(n_elements,) from element `first`, in the buffer."""
        size, done = self._element_bytes, 0
        while done < n_elements:
            start = first + done
            if not self._first <= start < self._stop:
                self._fetch(start, n_elements - done)
            n_here = min(n_elements - done, self._stop - start)
            begin = (start - self._first) * size
            buffer[done * size : (done + n_here) * size] = self._bytes[begin : begin + n_here * size]
            done += n_here
        return Block(buffer, self._view.dtype, n_elements)

    def _fetch(self, first: int, wanted: int) -> None:
        view = self._view
        n_elements = min(max(wanted, self._ahead(first)), view.n_elements - first)
        n_bytes = n_elements * self._element_bytes
        # Else two windows would be held while the next one comes.
        self._bytes = memoryview(b"")
        data = self._source.ranges.read(self._path, view.start + first * self._element_bytes, n_bytes)
        if len(data) != n_bytes:
            raise CheckpointError(
                f"{self._source.name}: {self._path}: expected {n_bytes:,} bytes of {view.name!r}, found {len(data):,}; "
                "the file was cut short"
            )
        self._first, self._stop, self._bytes = first, first + n_elements, memoryview(data)

    def _ahead(self, first: int) -> int:
        """Elements that will soon be asked for: of rows that are looked up by token, those next to each other only."""
        window = self._source.ranges.window_elements
        if self._begin is None:
            self._begin = first
        if first == self._begin:
            length = window
        else:
            length = min(window, 2 * (self._stop - self._first)) if first == self._stop else 0
        # Two rows more: where rows are read whole, a thread's last block ends in the middle of another's.
        return length + 2 * row_length(self._view.shape) if window and length == window else length


def locate(model: Checkpoint, cache: ResultCache) -> Located:
    """Have a model's headers and small files on this machine; its adapter, which is small, whole.

    Args:
        model: As it was planned.
        cache: Keeps what is brought here, and may know of the model's files.

    Raises:
        InputError: it lies in a folder and is not what was planned.
        StoreError: the model or the cache cannot be reached, or a small file is not what was planned.
        CheckpointError: a file of weights is no safetensors.
    """
    check_models_unchanged(cache, model)
    found = _locate(model.without_adapter, cache)
    if model.adapter is None:
        return found
    return replace(found, checkpoint=replace(found.checkpoint, adapter=_bring(model.adapter, cache)))


def _locate(model: Checkpoint, cache: ResultCache) -> Located:
    if model.uri.startswith("file:"):
        return Located(model)
    source = open_source(model.uri, "model")
    small = [path for path in model.files if not is_safetensors(path)]
    weights = {path: digest for path, digest in model.files.items() if is_safetensors(path)}
    fetched = fetch_files(source, small, cache, expected=model.files)
    stated = known_digests(source, weights, cache)
    if None in stated.values():
        logger.warning(
            "%s: %s has no sha256 of its weights, so they are fetched whole; store them with S3's own checksum "
            "(ChecksumAlgorithm SHA256), or share the cache on S3",
            model.name, model.uri,
        )  # fmt: skip
        fetch_files(source, weights, cache, expected=model.files)
    for path, digest in weights.items():
        check_unchanged(source, path, stated[path], digest)
    folder, sketch = open_sketch(model, source, fetched, cache)
    here = replace(model, uri=folder.as_uri())
    if sketch is None:
        return Located(here)
    return Located(here, _shared_ranges(weights, cache) or source.read_range)


def _shared_ranges(weights: Mapping[str, FileDigest], cache: ResultCache) -> ReadRange | None:
    """Reads files that machines share; None if they do not share all of them."""
    if cache.shared is None:
        return None
    shared: dict[str, Source] = {}
    for path, digest in weights.items():
        if (uri := cache.shared.find_file(digest)) is None:
            return None
        shared[path] = open_source(uri)

    def read(path: str, start: int, length: int) -> bytes:
        return shared[path].read_range(weights[path].sha256, start, length)

    return read


def _bring(adapter: Checkpoint, cache: ResultCache) -> Checkpoint:
    if adapter.uri.startswith("file:"):
        return adapter
    files = fetch_files(open_source(adapter.uri, "model"), adapter.files, cache, expected=adapter.files)
    return replace(adapter, uri=link_folder(files, cache).as_uri())


def ranges_by_folder(models: Sequence[Located], window_elements: int) -> dict[Path, Ranges]:
    """Folder of every model that is elsewhere to how its weights are read."""
    return {
        model.checkpoint.folder: Ranges(model.read_range, window_elements)
        for model in models
        if model.read_range is not None
    }
