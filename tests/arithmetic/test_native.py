"""The library in C has torch's bytes; torch computes wherever it is not there or does not know the dtypes."""

import ctypes
import logging
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.arithmetic import library
from tasks.arithmetic.library import load_library
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.native import add_task_vectors_rounded, sum_rounded
from tasks.arithmetic.task_vectors import add_task_vectors
from tasks.processor import has_fma

DTYPES = (torch.bfloat16, torch.float32, torch.float16)
SPECIAL = (0.0, -0.0, 1e-40, -1e-45, 1.0, -1.0, 3e38, 1.00390625, 1.01171875, 6e-8, -5e-5, 1.00048828125)
"""Zeros, denormal numbers, large ones, two between bfloat16 numbers, subnormal and other numbers of float16."""
# Without a compiler there is nothing to test here; with one, a library that is missing is a fault.
needs_library = pytest.mark.skipif(
    load_library() is None and shutil.which("cc") is None, reason="there is no C compiler, so torch computes"
)
needs_fma = pytest.mark.skipif(has_fma() is False, reason="torch does not fuse products and sums on this processor")


@pytest.fixture
def reloaded() -> Generator[None]:
    """The library is looked for anew, and once more afterwards."""
    load_library.cache_clear()
    yield
    load_library.cache_clear()


def bits(tensor: Tensor) -> list[int]:
    return tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32).tolist()


def draw_block(seed: int, n_elements: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(n_elements, generator=generator)
    special = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), (n_elements,), generator=generator)]
    # Sums of two large numbers would overflow, which is a case of its own.
    block = torch.where(torch.rand(n_elements, generator=generator) < 0.3, special * (seed % 2), block)
    # Nor does float16 go as far.
    return (block.clamp(max=6e4) if dtype == torch.float16 else block).to(dtype)


cases = st.tuples(
    st.integers(0, 2**31),
    st.one_of(st.integers(1, 40), st.integers(200, 1100)),
    st.lists(st.tuples(st.sampled_from(DTYPES), st.floats(-0.9, 0.9, width=64)), min_size=1, max_size=6),
    st.sampled_from(DTYPES),
)


@needs_library
@needs_fma
@given(cases)
def test_a_weighted_sum_has_the_bits_of_torch(case: tuple[int, int, list[tuple[torch.dtype, float]], torch.dtype]):
    seed, n_elements, inputs, dtype = case
    blocks = [draw_block(seed + index, n_elements, each) for index, (each, _) in enumerate(inputs)]
    weights = [weight / len(blocks) for _, weight in inputs]
    out = torch.empty(n_elements, dtype=dtype)
    expected = weighted_sum(blocks, weights).to(dtype)
    assert sum_rounded(blocks, weights, out) is bool(torch.isfinite(expected).all())
    assert bits(out) == bits(expected)


@needs_library
@needs_fma
@given(cases, st.sampled_from([1.0, 0.5, -0.3]), st.booleans())
def test_task_vectors_are_added_with_the_bits_of_torch(
    case: tuple[int, int, list[tuple[torch.dtype, float]], torch.dtype], scale: float, is_from_base: bool
):
    seed, n_elements, inputs, dtype = case
    blocks = [draw_block(2 * (seed + index), n_elements, each) for index, (each, _) in enumerate(inputs)]
    omegas = [omega for _, omega in inputs]
    base = draw_block(2 * seed + 50, n_elements, inputs[0][0])
    general = base if is_from_base else draw_block(2 * seed + 60, n_elements, dtype)
    out = torch.empty(n_elements, dtype=dtype)
    expected = add_task_vectors(general, base, blocks, omegas, scale).to(dtype)
    assert add_task_vectors_rounded(general, base, blocks, omegas, scale, out) is bool(torch.isfinite(expected).all())
    assert bits(out) == bits(expected)


@needs_library
@pytest.mark.parametrize("place", [0, 255, 256, 700])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_number_that_is_not_finite_is_seen(place: int, broken: float, dtype: torch.dtype):
    block = torch.zeros(701)
    block[place] = broken
    out = torch.empty(701, dtype=dtype)
    assert sum_rounded([block], [1.0], out) is False
    assert add_task_vectors_rounded(torch.zeros(701), torch.zeros(701), [block], [1.0], 1.0, out) is False


@needs_library
def test_a_nan_whose_bits_would_round_to_zero_is_seen():
    block = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert sum_rounded([block], [1.0], torch.empty(1, dtype=torch.bfloat16)) is False


@needs_library
@pytest.mark.parametrize(
    ("dtype", "pattern", "is_finite"),
    [
        (torch.bfloat16, 0x7F7F0000, True),  # the largest
        (torch.bfloat16, 0x7F7F7FFF, True),  # just below half way to the next power of two
        (torch.bfloat16, 0x7F7F8000, False),  # half way: rounds to infinity
        (torch.float16, 0x477FE000, True),
        (torch.float16, 0x477FEFFF, True),
        (torch.float16, 0x477FF000, False),
    ],
)
def test_what_overflows_when_it_is_rounded_is_not_finite(dtype: torch.dtype, pattern: int, is_finite: bool):
    block = torch.tensor([pattern], dtype=torch.int32).view(torch.float32)
    out = torch.empty(1, dtype=dtype)
    assert sum_rounded([block], [1.0], out) is is_finite
    assert bool(torch.isfinite(block.to(dtype))) is is_finite


@needs_library
def test_every_float16_number_is_read_and_written_as_it_is():
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = numbers[torch.isfinite(numbers)]
    wide, narrow = torch.empty(len(finite)), torch.empty(len(finite), dtype=torch.float16)
    assert sum_rounded([finite], [1.0], wide) and torch.equal(wide.view(torch.int32), finite.float().view(torch.int32))
    assert sum_rounded([wide], [1.0], narrow) and bits(narrow) == bits(finite)


@needs_library
def test_float32_is_rounded_to_float16_half_to_even():
    # Each number, the points half way to its neighbours, and what lies beside them.
    numbers = torch.arange(0x7C00, dtype=torch.int32).to(torch.uint16).view(torch.float16).float()
    half_ways = ((numbers[1:].double() + numbers[:-1].double()) / 2).float().view(torch.int32)
    block = torch.cat([half_ways - 1, half_ways, half_ways + 1]).view(torch.float32)
    block = torch.cat([block, -block])
    out = torch.empty(len(block), dtype=torch.float16)
    assert sum_rounded([block], [1.0], out) is True
    assert bits(out) == bits(block.half())


@pytest.mark.parametrize(
    ("block", "out"),
    [
        (torch.zeros(4, dtype=torch.float64), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.float64)),
        (torch.zeros(8)[::2], torch.zeros(4)),
        (torch.zeros(2, 2), torch.zeros(4)),
        (torch.zeros(5), torch.zeros(4)),
        (torch.frombuffer(bytearray(20), dtype=torch.float32, count=4, offset=1), torch.zeros(4)),
    ],
    ids=["float64", "into float64", "every other", "matrix", "other length", "odd address"],
)
def test_what_it_does_not_know_is_left_to_torch(block: Tensor, out: Tensor):
    assert sum_rounded([block], [1.0], out) is None
    assert not out.any()


def test_what_does_not_fit_together_is_left_to_torch_which_says_so():
    ones, out = torch.ones(4), torch.zeros(4)
    assert sum_rounded([], [], out) is None
    assert sum_rounded([ones, ones], [1.0], out) is None
    assert add_task_vectors_rounded(ones, ones, [ones], [], 1.0, out) is None
    assert not out.any()


@pytest.mark.usefixtures("reloaded")
def test_without_the_library_torch_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "_kernels.so")
    assert sum_rounded([torch.zeros(4)], [1.0], torch.zeros(4)) is None


@pytest.mark.usefixtures("reloaded")
def test_a_file_that_is_no_library_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "_kernels.so").write_bytes(b"no library")
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "_kernels.so")
    with caplog.at_level(logging.WARNING):
        assert load_library() is None
    assert "cannot be loaded, so torch merges, more slowly" in caplog.text


@needs_library
@pytest.mark.usefixtures("reloaded")
def test_the_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    with caplog.at_level(logging.WARNING):
        assert load_library() is None
    assert "is of another version, so torch merges, more slowly; install again" in caplog.text


@needs_library
def test_python_and_c_agree_on_the_version():
    assert ctypes.CDLL(str(library.LIBRARY)).version() == library.VERSION
