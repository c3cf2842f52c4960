from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.arithmetic.block import Block
from tasks.checkpoint import read_tensor_views
from tasks.merge.sources import FileSource, ReadBlock, describe, extra_elements, reading_anywhere
from tasks.tensors import TensorView


@dataclass
class RowSource:
    """Rows of a tensor that is held in memory; refuses to be read in any other way."""

    tensor: Tensor
    name: str = "rows"
    read: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def describe(self, tensor_name: str) -> TensorView | None:
        return TensorView(tensor_name, "F32", tuple(self.tensor.shape), Path("rows"), 0)

    def whole_rows(self, tensor_name: str) -> bool:
        return True

    @contextmanager
    def reading(self, tensor_name: str) -> Generator[ReadBlock]:
        length = self.tensor.shape[-1]

        def read(first: int, n_elements: int, buffer: memoryview) -> Block:
            assert first % length == n_elements % length == 0
            assert len(buffer) >= 4 * n_elements
            self.read.append((first, n_elements))
            block = Block(buffer, "F32", n_elements)
            block.tensor().copy_(self.tensor.flatten()[first : first + n_elements])
            return block

        yield read


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int16, torch.uint32, torch.bool])
def test_a_block_of_a_file_comes_in_the_dtype_of_the_file(make_checkpoint, dtype: torch.dtype):
    values = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    source = FileSource("a", read_tensor_views(make_checkpoint("a", {"w": values}).folder))
    with source.reading("w") as read:
        block = read(1, 3, memoryview(bytearray(24))).tensor()
    assert block.dtype == dtype
    assert block.tolist() == values[1:4].tolist()
    assert not source.whole_rows("w")


@given(first=st.integers(0, 34), n_elements=st.integers(1, 35))
def test_any_block_can_be_read_of_a_source_of_whole_rows(first: int, n_elements: int):
    n_elements = min(n_elements, 35 - first)
    source = RowSource(torch.arange(35.0).reshape(5, 7))
    buffer = memoryview(bytearray(4 * (n_elements + extra_elements(source, "w"))))
    with reading_anywhere(source, "w") as read:
        assert read(first, n_elements, buffer).array().tolist() == list(range(first, first + n_elements))


def test_no_row_is_read_twice_where_blocks_end_with_one():
    source = RowSource(torch.arange(12.0).reshape(3, 4))
    with reading_anywhere(source, "w") as read:
        for first in (0, 8):
            read(first, min(8, 12 - first), memoryview(bytearray(64)))
    assert source.read == [(0, 8), (8, 4)]


def test_a_source_of_whole_rows_merges_like_a_file(make_checkpoint, stream):
    values = torch.arange(35.0).reshape(5, 7)
    checkpoint = make_checkpoint("a", {"w": values})
    plain = stream(checkpoint)
    assert stream(checkpoint, wrap=lambda source: RowSource(values), block_elements=4) == plain


def test_a_tensor_that_a_source_lacks_is_named():
    with pytest.raises(ValueError, match="news has no tensor 'w'"):
        describe(FileSource("news", {}), "w")
