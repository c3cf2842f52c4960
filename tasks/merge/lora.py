"""A candidate that is a LoRA adapter on a base: its tensors are computed block by block while they are merged."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tasks.arithmetic.block import Block
from tasks.lora.adapted import LowRank
from tasks.lora.adapter import Adapter
from tasks.merge.sources import FileSource, ReadBlock, TensorSource, describe, row_length
from tasks.tensors import DTYPE_BYTES, TensorView


@dataclass(frozen=True, slots=True)
class LoraSource:
    """The base's tensors plus an adapter's changes, in float32 (float64 where the base is).

    The sum is not rounded to the base's dtype, so that it takes part in the merge with all that was trained. Matrices
    of an adapter are in memory only while a thread reads the tensor that they change.
    """

    name: str
    base: TensorSource
    adapter: Adapter

    def describe(self, tensor_name: str) -> TensorView | None:
        """As in the base, but in the dtype of the sum, and in the adapter's file, where it is changed."""
        view = self._unchanged(tensor_name).describe(tensor_name)
        change = self.adapter.changes.get(tensor_name)
        if view is None or change is None:
            return view
        return replace(view, dtype="F64" if view.dtype == "F64" else "F32", file=change.a.file, start=0)

    @contextmanager
    def reading(self, tensor_name: str) -> Generator[ReadBlock]:
        """Open the base's tensor and load the matrices of its change."""
        inner = self._unchanged(tensor_name)
        with inner.reading(tensor_name) as read_stored:
            change = self.adapter.changes.get(tensor_name)
            if change is None:
                yield read_stored
                return
            stored_bytes = DTYPE_BYTES[describe(inner, tensor_name).dtype]
            view = describe(self, tensor_name)
            length = row_length(view.shape)
            low_rank = LowRank(change)
            scratch = memoryview(bytearray(0))

            def read(first: int, n_elements: int, buffer: memoryview) -> Block:
                nonlocal scratch
                if len(scratch) < n_elements * stored_bytes:
                    scratch = memoryview(bytearray(n_elements * stored_bytes))
                block = Block(buffer, view.dtype, n_elements)
                rows = block.tensor().copy_(read_stored(first, n_elements, scratch).tensor()).view(-1, length)
                low_rank.add_to(rows, first // length)
                return block

            yield read

    def whole_rows(self, tensor_name: str) -> bool:
        """Rows of a changed tensor are computed whole."""
        return tensor_name in self.adapter.changes or self._unchanged(tensor_name).whole_rows(tensor_name)

    def stored_bytes(self, tensor_name: str) -> int:
        """Bytes of what is changed and of the matrices that change it."""
        change = self.adapter.changes.get(tensor_name)
        own = change.a.n_bytes + change.b.n_bytes if change else 0
        return self._unchanged(tensor_name).stored_bytes(tensor_name) + own

    def _unchanged(self, tensor_name: str) -> TensorSource:
        """Where the tensor comes from that a change is added to."""
        view = self.adapter.replaced.get(tensor_name)
        if view is None:
            return self.base
        # Under the base's name, and in the component that it is there.
        own = replace(view, name=tensor_name, component=describe(self.base, tensor_name).component)
        return FileSource(self.name, {tensor_name: own})
