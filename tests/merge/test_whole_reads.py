import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from tasks.arithmetic import library
from tasks.arithmetic.block import Block
from tasks.arithmetic.library import load_library
from tasks.merge.sources import FileBlocks
from tasks.merge.whole_reads import WholeReads
from tasks.tensors import TensorView

pytestmark = pytest.mark.skipif(load_library() is None and shutil.which("cc") is None, reason="there is no C compiler")
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F16": torch.float16, "F64": torch.float64}


@pytest.fixture
def descriptors(tmp_path: Path) -> Generator[list[int]]:
    opened: list[int] = []
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def write(folder: Path, name: str, dtype: str, numbers: torch.Tensor, descriptors: list[int]) -> FileBlocks:
    """A tensor after ten bytes of something else."""
    tensor = numbers.to(DTYPES[dtype])
    (folder / name).write_bytes(b"0123456789" + tensor.view(torch.uint8).numpy().tobytes())
    descriptors.append(os.open(folder / name, os.O_RDONLY))
    return FileBlocks(descriptors[-1], TensorView(name, dtype, (len(tensor),), folder / name, 10))


def test_blocks_of_all_files_are_read_at_once(tmp_path: Path, descriptors: list[int]):
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    files = [
        write(tmp_path, name, dtype, numbers, descriptors)
        for name, dtype in (("a", "BF16"), ("b", "F32"), ("c", "F16"))
    ]
    reads = WholeReads.of(files, [memoryview(bytearray(4000)) for _ in files])
    assert reads is not None
    for first, n_elements in ((0, 400), (400, 400), (800, 200)):
        found = reads.read(first, n_elements, looks_for_nan=True)
        assert found is not None
        (narrow, wide, half), are_finite = found
        assert are_finite
        assert torch.equal(wide.tensor(), numbers[first : first + n_elements])
        assert torch.equal(narrow.tensor(), numbers[first : first + n_elements].bfloat16())
        assert torch.equal(half.tensor(), numbers[first : first + n_elements].half())


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F16"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_are_seen_where_they_are_looked_for(
    tmp_path: Path, descriptors: list[int], dtype: str, broken: float
):
    numbers = torch.full((300,), 3e38 if dtype != "F16" else 65504.0)
    numbers[277] = broken
    reads = WholeReads.of([write(tmp_path, "a", dtype, numbers, descriptors)], [memoryview(bytearray(1200))])
    assert reads is not None
    told = [reads.read(first, 50, looks_for_nan=looks) for first, looks in ((0, True), (250, True), (250, False))]
    assert [answer is not None and answer[1] for answer in told] == [True, False, True]


def test_a_file_that_became_shorter_is_left_to_its_own_reader_which_says_so(tmp_path: Path, descriptors: list[int]):
    file = write(tmp_path, "a", "F32", torch.zeros(100), descriptors)
    os.truncate(tmp_path / "a", 200)
    reads = WholeReads.of([file], [memoryview(bytearray(400))])
    assert reads is not None
    assert reads.read(0, 100, looks_for_nan=False) is None


def test_other_dtypes_and_other_readers_are_left_alone(
    tmp_path: Path, descriptors: list[int], monkeypatch: pytest.MonkeyPatch
):
    wide = write(tmp_path, "a", "F64", torch.zeros(4), descriptors)
    known = write(tmp_path, "b", "F32", torch.zeros(4), descriptors)
    buffers = [memoryview(bytearray(16)) for _ in range(2)]
    assert WholeReads.of([known, wide], buffers) is None
    assert WholeReads.of([known, lambda first, n_elements, buffer: Block(buffer, "F32", n_elements)], buffers) is None
    assert WholeReads.of([], buffers) is None
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    load_library.cache_clear()
    assert WholeReads.of([known], buffers) is None
    load_library.cache_clear()
