"""Thinned out task vectors in C have the bits that numba and torch give step by step."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tasks.arithmetic import native_counting, native_thinning
from tasks.arithmetic.library import load_library
from tasks.arithmetic.method import Formula, OnePass
from tasks.arithmetic.row_ranks import by_rank
from tasks.processor import has_fma
from tests.helpers.formulas import make

pytestmark = [
    pytest.mark.skipif(load_library() is None and shutil.which("cc") is None, reason="there is no C compiler"),
    pytest.mark.skipif(has_fma() is False, reason="torch does not fuse products and sums on this processor"),
]
FAMILY = ["ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"]
LEVELS = (2.0, 50.0, 1e9)
"""Of numbers: few give many equal magnitudes."""


def draw(seed: int, shape: tuple[int, ...], dtype: torch.dtype, levels: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator).mul(levels).round() / levels).to(dtype)


def without_c(patch: pytest.MonkeyPatch) -> None:
    for module in (native_counting, native_thinning):
        patch.setattr(module, "operands", lambda tensors: None)


def in_one_pass(formula: Formula, base: Tensor, candidates: list[Tensor], block: int, dtype: torch.dtype) -> Tensor:
    """As the engine runs it: blocks read again up to the extent, then combined and rounded."""
    assert isinstance(formula, OnePass)
    passes: Any = formula
    flat, length = [each.reshape(-1) for each in (base, *candidates)], base.shape[-1]
    block = max(1, block // length) * length if formula.whole_rows else block
    out = torch.empty(base.numel(), dtype=dtype)
    for number in range(formula.n_passes):
        for first in range(0, passes.extent(number), block):
            parts = [each[first : first + block] for each in flat]
            formula.observe(number, first, parts[0], parts[1:])
    for first in range(0, base.numel(), block):
        parts = [each[first : first + block] for each in flat]
        assert formula.combine_rounded(first, parts[0], parts[1:], out[first : first + block])
    return out


def step_by_step(formula: Formula, base: Tensor, candidates: list[Tensor], dtype: torch.dtype) -> Tensor:
    flat = [each.reshape(-1) for each in (base, *candidates)]
    for number in range(formula.n_passes):
        formula.observe(number, 0, flat[0], flat[1:])
    return formula.combine(0, flat[0], flat[1:], torch.empty(base.numel())).to(dtype)


@pytest.mark.parametrize("method", FAMILY)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(1,), (7,), (3, 50), (40, 64), (2, 1500), (1100, 1), (5, 3, 90)]),
    dtypes=st.lists(st.sampled_from([torch.bfloat16, torch.float32, torch.float16]), min_size=4, max_size=4),
    levels=st.sampled_from(LEVELS),
    density=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
    weights=st.sampled_from([(0.5, 0.5), (1.0, -0.3), (0.7, 0.0), (0.3, 0.4)]),
    block=st.sampled_from([70, 300, 5000]),
    with_general=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_pass_gives_the_bits_of_the_steps(
    method: str, seed: int, shape: tuple[int, ...], dtypes: list[torch.dtype], levels: float, density: float,
    weights: tuple[float, float], block: int, with_general: bool,
):  # fmt: skip
    base, first, second = (draw(seed + index, shape, dtypes[index], levels) for index in range(3))
    options: dict[str, Any] = {
        "of_candidates": [{"density": density}, {"density": 0.8}], "general": 1 if with_general else None,
        "seed": seed, "parameters": {"lambda": 0.7},
    }  # fmt: skip
    found = in_one_pass(make(method, shape, weights, **options), base, [first, second], block, dtypes[3])
    with pytest.MonkeyPatch.context() as patch:
        without_c(patch)
        expected = step_by_step(make(method, shape, weights, **options), base, [first, second], dtypes[3])
    bits = torch.int16 if dtypes[3].itemsize == 2 else torch.int32
    assert torch.equal(found.view(bits), expected.view(bits))


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
@pytest.mark.parametrize("n_candidates", [1, 3, 4, 5, 7])
def test_any_number_of_candidates_gives_the_bits_of_the_steps(
    method: str, n_candidates: int, monkeypatch: pytest.MonkeyPatch
):
    shape, weights = (40, 64), [0.3 - 0.11 * index for index in range(n_candidates)]
    base, *candidates = (draw(index, shape, torch.bfloat16, 50.0) for index in range(n_candidates + 1))
    options: dict[str, Any] = {"of_candidates": [{"density": 0.6}] * n_candidates, "parameters": {"normalize": True}}
    found = in_one_pass(make(method, shape, weights, **options), base, candidates, 300, torch.bfloat16)
    without_c(monkeypatch)
    expected = step_by_step(make(method, shape, weights, **options), base, candidates, torch.bfloat16)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


def few_digits(length: int, generator: torch.Generator) -> Tensor:
    """Differences of fine-tunes in bfloat16."""
    numbers = torch.randn(length, generator=generator) * 0.02
    changes = torch.randn(length, generator=generator) * 0.001
    return (numbers + changes).bfloat16().float() - numbers.bfloat16().float()


KINDS = [
    "zero", "equal", "two values", "one large", "falling", "tiny", "huge", "few digits", "far ones", "between",
    "many numbers",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 127, 128, 385, 1000, 5632, 65_535])
def test_rows_of_any_kind_are_ranked_all_the_same(kind: str, length: int):
    generator = torch.Generator().manual_seed(length)
    row = {
        "zero": torch.zeros(length),
        "equal": torch.full((length,), 0.25),
        "two values": torch.randint(2, (length,), generator=generator) + 1.0,
        "one large": torch.rand(length, generator=generator) * 1e-6,
        "falling": torch.linspace(1.0001, 1, length),
        "tiny": torch.rand(length, generator=generator) * 1e-42,
        "huge": torch.rand(length, generator=generator) * 1e38,
        "few digits": few_digits(length, generator),
        "far ones": torch.randint(3, (length,), generator=generator).float(),
        "between": torch.randint(1, 9, (length,), generator=generator).float(),
        "many numbers": torch.randint(16_300, (length,), generator=generator).float(),
    }[kind]
    row[-1] = 1e30 if kind == "one large" else row[-1]
    few = row[(length - 1) % 9 :: 9]
    if kind == "far ones":  # So many moves in the last bin that keys are sorted.
        few.copy_(torch.linspace(101, 99, len(few)))
    if kind == "between":  # Signs differ, too.
        few *= 0.9 - torch.rand(len(few), generator=generator)
    if kind == "many numbers":
        few += 0.5
    # No number reaches the chance 2**31 - 1, so that the rescaled row shows each element's chance.
    chances = torch.linspace(2**30, 2**31 - 1, 2 * length + 1, dtype=torch.float64).to(torch.int32).numpy()
    out, zeros = torch.empty(length), torch.zeros(length)
    kept = native_thinning.keep_by_rank((1, 2), chances, rescale=True)
    assert native_thinning.thinned_sum_rounded(zeros, zeros, [row], [kept], [1.0], None, False, 1.0, 0, length, out)
    ranked = by_rank(row, length, chances, np.empty(length, np.int32))
    rescaled = row / (torch.from_numpy(ranked).float() * 2.0**-31)
    assert torch.equal(out[out != 0], rescaled[out != 0])
    assert out.count_nonzero() >= row.count_nonzero() // 2


def test_longer_rows_are_left_to_numba():
    formula = make("della", (1, 65_536), [1.0], of_candidates=[{"density": 0.5}])
    row = torch.ones(65_536)
    assert isinstance(formula, OnePass)
    assert formula.combine_rounded(0, row, [row], torch.empty(65_536)) is None


def test_a_block_beyond_a_multiple_of_two_to_the_32_is_left_to_numba():
    formula = make("dare_linear", (2**33,), [1.0], of_candidates=[{"density": 0.5}])
    block = torch.ones(10)
    assert isinstance(formula, OnePass)
    assert formula.combine_rounded(2**32 - 4, block, [block], torch.empty(10)) is None
    assert formula.combine_rounded(2**32, block, [block], torch.empty(10)) is True


def test_what_does_not_fit_together_is_not_done_here():
    block, out = torch.ones(6), torch.zeros(6)
    kept = [native_thinning.Thinning()]

    def add(coefficients: list[float], weights: list[float] | None, row: int | None) -> bool | None:
        return native_thinning.thinned_sum_rounded(
            block, block, [block], kept, coefficients, weights, False, 1.0, 0, row, out
        )

    assert add([1.0, 1.0], None, None) is None
    assert add([1.0], [1.0, 1.0], None) is None
    assert add([1.0], [1.0], 4) is None
    assert not out.any()
    assert add([1.0], [1.0], 3) is True


def test_what_is_not_finite_is_seen():
    block, out = torch.full((2000,), 3e38), torch.empty(2000)
    kept = [native_thinning.Thinning()]
    assert not native_thinning.thinned_sum_rounded(
        block, -block / 8, [block], kept, [1.0], None, False, 1.0, 0, None, out
    )
    assert native_thinning.thinned_sum_rounded(block, block, [block], kept, [1.0], None, False, 1.0, 0, None, out)


def test_other_dtypes_are_left_to_numba():
    wide, one = torch.zeros(4, dtype=torch.float64), torch.zeros(4)
    kept = [native_thinning.Thinning()]
    assert native_thinning.thinned_sum_rounded(one, one, [wide], kept, [1.0], None, False, 1.0, 0, None, one) is None
