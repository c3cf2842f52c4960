from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.arithmetic.compiled.kept_kernels import _FilePerSignature
from tasks.arithmetic.compiled.kernel import compiled


def double(numbers: NDArray[np.float32] | NDArray[np.float64]) -> None:
    for i in range(numbers.size):
        numbers[i] *= 2


def files_in(folder: Path, stamp: object = "as it is") -> Any:
    return _FilePerSignature(str(folder), "kernel-1.py311", stamp)


def test_code_for_one_dtype_is_never_taken_for_that_of_another(tmp_path: Path):
    """With numba's own files the second time that one is opened here finds the code for float32 under uint16."""
    first, second = files_in(tmp_path), files_in(tmp_path)
    open_file, n_opened = first._open_for_write, 0

    def let_the_other_in(path: str) -> Any:
        nonlocal n_opened
        n_opened += 1
        second.save(("float32",), b"code for float32")
        assert files_in(tmp_path).load(("uint16",)) is None
        return open_file(path)

    first._open_for_write = let_the_other_in
    first.save(("uint16",), b"code for uint16")
    assert n_opened
    assert files_in(tmp_path).load(("float32",)) == b"code for float32"
    assert files_in(tmp_path).load(("uint16",)) == b"code for uint16"


def test_code_of_another_source_is_not_taken_and_is_replaced(tmp_path: Path):
    files_in(tmp_path, "old").save(("float32",), b"old code")
    assert files_in(tmp_path, "new").load(("float32",)) is None
    files_in(tmp_path, "new").save(("float32",), b"new code")
    assert files_in(tmp_path, "new").load(("float32",)) == b"new code"
    assert files_in(tmp_path, "old").load(("float32",)) is None
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("left", [b"", b"\x80\x05", b"garbage\n", b"\x80\x05K\x01."])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, left: bytes):
    files_in(tmp_path).save(("float32",), b"code")
    (file,) = tmp_path.iterdir()
    file.write_bytes(left)
    assert files_in(tmp_path).load(("float32",)) is None
    assert files_in(tmp_path).load(("float64",)) is None


def test_a_kernel_is_compiled_once_for_each_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for misses, hits in [(1, 0), (0, 1)]:
        kernel: Any = compiled(double)
        for dtype in (np.float32, np.float64):
            numbers = np.array([1.0, 2.5], dtype)
            kernel(numbers)
            assert numbers.tolist() == [2.0, 5.0]
        assert set(kernel.stats.cache_misses.values()) == ({misses} if misses else set())
        assert set(kernel.stats.cache_hits.values()) == ({hits} if hits else set())
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    assert not list(tmp_path.rglob("*.nbi"))
