import subprocess
import sys

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.arithmetic.compiled.differences import subtract
from tasks.arithmetic.compiled.kept_kernels import KeptKernels
from tasks.arithmetic.compiled.kernel import compiled, magnitude_pattern, widen
from tasks.arithmetic.elements import as_elements


def double(numbers: NDArray[np.float64]) -> None:
    for i in range(numbers.size):
        numbers[i] *= 2


def test_a_kernel_is_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "ZipCacheLocator")
    with pytest.raises(RuntimeError, match="no locator"):
        KeptKernels(double)
    numbers = np.array([1.0, 2.5])
    compiled(double)(numbers)
    assert numbers.tolist() == [2.0, 5.0]


def test_patterns_are_ordered_like_magnitudes():
    numbers = [0.0, -1e-45, 1e-45 * 2, -0.5, 0.50000006, 1.0, -3e38]
    patterns = [magnitude_pattern(number) for number in numbers]
    assert patterns == sorted(patterns)
    assert (patterns[0], patterns[5]) == (0, 0x3F800000)


@pytest.mark.parametrize(
    "dtypes, wanted, found",
    [
        ((torch.bfloat16, torch.bfloat16), torch.float32, np.uint16),
        ((torch.bfloat16, torch.bfloat16), torch.float64, np.float64),
        ((torch.float32, torch.bfloat16), torch.float32, np.float32),
        ((torch.float16, torch.float16), torch.float32, np.float32),
        ((torch.float64, torch.bfloat16), torch.float64, np.float64),
    ],
)
def test_differences_are_those_of_the_converted_tensors(
    dtypes: tuple[torch.dtype, torch.dtype], wanted: torch.dtype, found: type
):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1000, generator=generator).to(dtype) for dtype in dtypes)
    elements = as_elements([left, right], wanted)
    assert [each.dtype for each in elements] == [found, found]
    out = torch.empty(1000, dtype=wanted)
    subtract(*elements, out.numpy())
    assert torch.equal(out, left.to(wanted) - right.to(wanted))


def test_elements_are_widened_in_kernels_only():
    with pytest.raises(NotImplementedError, match="in kernels"):
        widen(1)


def test_methods_that_torch_does_as_fast_do_not_load_numba():
    program = (
        "import sys, tasks.merge.merge\n"
        "from tasks.arithmetic.catalogue import find_method\n"
        "find_method('linear'), find_method('task_arithmetic')\n"
        "sys.exit('numba' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
