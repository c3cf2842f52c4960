import numpy as np
import pytest
import torch

from tasks.arithmetic.block import Block, as_tensor, torch_dtype
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES


def make(values: list[float], dtype: str) -> Block:
    block = Block(memoryview(bytearray(100)), dtype, len(values))
    block.tensor().copy_(torch.tensor(values))
    return block


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
def test_a_block_and_its_tensor_and_array_are_the_same_memory(dtype: str):
    block = make([0, 1, 1, 0, 1], dtype)
    assert (len(block), block.numel(), block.shape) == (5, 5, (5,))
    assert block.tensor().dtype == torch_dtype(dtype)
    assert block.tensor().data_ptr() == block.address == block.array().ctypes.data
    assert len(block.memory) == block.tensor().nbytes == block.array().nbytes
    block.array()[1] = 0
    assert block.tensor().tolist() == [0, 0, 1, 0, 1]


def test_a_part_is_in_the_same_memory():
    block = make([1, 2, 3, 4, 5], "BF16")
    part = block[1:4]
    assert part.tensor().tolist() == [2, 3, 4]
    assert part.address == block.address + 2
    part.tensor().fill_(7)
    assert block.tensor().tolist() == [1, 7, 7, 7, 5]
    assert block[3:].tensor().tolist() == [7, 5]
    assert len(block[5:]) == len(block[4:2]) == 0
    assert block[5:].tensor().dtype == torch.bfloat16 and block[5:].array().tolist() == []


def test_memory_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="3 elements of F32 take 12 bytes; found 11"):
        Block(memoryview(bytearray(11)), "F32", 3)


@pytest.mark.parametrize("dtype", sorted(FLOAT_DTYPES))
def test_numbers_are_the_same_in_float64(dtype: str):
    block = make([0.0, -0.1, 6e4, 1e-7, float("inf")], dtype)
    out = np.empty(5)
    block.copy_in_float64(out)
    assert out.tolist() == block.tensor().double().tolist()
    quiet, signalling = make([float("nan")], dtype), make([float("inf")], dtype)
    signalling.array().view(f"u{DTYPE_BYTES[dtype]}")[0] += 1
    for nan in (quiet, signalling):
        nan.copy_in_float64(out[:1])
        assert np.isnan(out[0])


def test_a_tensor_stays_itself():
    tensor = torch.ones(2)
    assert as_tensor(tensor) is tensor
    assert as_tensor(make([3.0], "F64")).tolist() == [3.0]
