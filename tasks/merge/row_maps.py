"""A model whose rows are read in another order, some of them from other models, as if they stood so in its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import Block
from tasks.merge.sources import ReadBlock, TensorSource, describe
from tasks.tensors import DTYPE_BYTES, TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

MEAN = -1
"""In place of a model and a row: the mean of several."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where each row of the output's embeddings lies, for one of the models."""

    model: NDArray[np.int32]
    """Index of the model that has it, 0 for the base; `MEAN` where it is a mean."""
    row: NDArray[np.int64]
    """Its row there; `MEAN` where it is a mean."""
    means: Mapping[int, tuple[tuple[int, int], ...]]
    """Row of the output to (model, row there) of those whose mean it is."""


@dataclass(frozen=True, slots=True)
class RowMappedSource:
    """A model whose embeddings are read in the order of the output's tokens; other tensors are as they are."""

    name: str
    inner: TensorSource
    models: Sequence[TensorSource]
    """As `rows` counts them, the base first."""
    rows: Rows
    tensors: Collection[str]
    """Names of those with a row for every token."""

    def describe(self, tensor_name: str) -> TensorView | None:
        """With the output's rows; float32, or wider, where rows of several dtypes or means of rows are in it."""
        view = self.inner.describe(tensor_name)
        if view is None or tensor_name not in self.tensors:
            return view
        dtypes = {view.dtype, *(describe(self.models[index], tensor_name).dtype for index in self._models_read())}
        dtype = view.dtype if len(dtypes) == 1 and not self.rows.means else "F64" if "F64" in dtypes else "F32"
        return replace(view, dtype=dtype, shape=(len(self.rows.row), *view.shape[1:]), start=0)

    @contextmanager
    def reading(self, tensor_name: str) -> Generator[ReadBlock]:
        """Open the tensor in all models that rows of it come from."""
        if tensor_name not in self.tensors:
            with self.inner.reading(tensor_name) as read_inner:
                yield read_inner
            return
        view = describe(self, tensor_name)
        length = view.shape[1] if len(view.shape) > 1 else 1
        with ExitStack() as files:
            readers = {
                index: _RowReader(self.models[index], tensor_name, length, files) for index in self._models_read()
            }

            def read(first: int, n_elements: int, buffer: memoryview) -> Block:
                block = Block(buffer, view.dtype, n_elements)
                into = block.tensor().view(-1, length)
                start, stop = first // length, (first + n_elements) // length
                for begin, end in _runs(self.rows, start, stop):
                    model = int(self.rows.model[begin])
                    target = into[begin - start : end - start]
                    if model == MEAN:
                        rows = [readers[index].read(row, 1).double() for index, row in self.rows.means[begin]]
                        target.copy_(torch.cat(rows).mean(dim=0, keepdim=True))
                    else:
                        target.copy_(readers[model].read(int(self.rows.row[begin]), end - begin))
                return block

            yield read

    def whole_rows(self, tensor_name: str) -> bool:
        """Rows of a matrix are looked up whole; in a vector with an element for every token an element is a row."""
        if tensor_name not in self.tensors:
            return self.inner.whole_rows(tensor_name)
        return len(describe(self.inner, tensor_name).shape) > 1

    def stored_bytes(self, tensor_name: str) -> int:
        """Bytes of the rows that are read, wherever they lie."""
        if tensor_name not in self.tensors:
            return self.inner.stored_bytes(tensor_name)
        counts = Counter(self.rows.model.tolist())
        counts.update(index for origins in self.rows.means.values() for index, _ in origins)
        row_bytes = (
            self.models[index].stored_bytes(tensor_name) / describe(self.models[index], tensor_name).shape[0] * n_rows
            for index, n_rows in counts.items()
            if index != MEAN
        )
        return round(sum(row_bytes))

    def _models_read(self) -> list[int]:
        found = {int(index) for index in np.unique(self.rows.model)} - {MEAN}
        return sorted(found | {index for origins in self.rows.means.values() for index, _ in origins})


class _RowReader:
    """Rows of one tensor of one model; used by one thread."""

    def __init__(self, source: TensorSource, tensor_name: str, length: int, files: ExitStack):
        self._read = files.enter_context(source.reading(tensor_name))
        self._length = length
        self._element_bytes = DTYPE_BYTES[describe(source, tensor_name).dtype]
        self._buffer = memoryview(bytearray(0))

    def read(self, row: int, n_rows: int) -> Tensor:
        """(n_rows, row length), valid until the next is read."""
        n_elements = n_rows * self._length
        if len(self._buffer) < n_elements * self._element_bytes:
            self._buffer = memoryview(bytearray(n_elements * self._element_bytes))
        return self._read(row * self._length, n_elements, self._buffer).tensor().view(n_rows, self._length)


def _runs(rows: Rows, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Rows of the output from `start` to `stop` in pieces that lie one after the other in one model."""
    follows = (np.diff(rows.model[start:stop]) == 0) & (np.diff(rows.row[start:stop]) == 1)
    borders = [start, *(np.flatnonzero(~follows) + start + 1).tolist(), stop]
    yield from pairwise(borders)
