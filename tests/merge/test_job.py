from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from tasks.arithmetic.method import Elementwise, Formula
from tasks.merge.job import BLOCKS_PER_RANGE, Job, Output, count_bytes_read, plan_parts
from tasks.merge.sources import FileSource
from tasks.tensors import TensorView

BLOCK = 64 * 1024


class Rule(Elementwise):
    """Says how it wants to be called; never is."""

    def __init__(self, n_passes: int = 0, whole_rows: bool = False):
        self.n_passes, self.whole_rows = n_passes, whole_rows

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        raise NotImplementedError


class ShortRule(Rule):
    """Sees all in its first pass only."""

    def extent(self, number: int) -> int:
        raise NotImplementedError


def view(name: str, *shape: int, dtype: str = "F32") -> TensorView:
    return TensorView(name, dtype, shape, Path("x"), 0)


def job(formula: Formula, *tensors: TensorView, n_outputs: int = 1, block: int = BLOCK, base: bool = False) -> Job:
    source = FileSource("a", {tensor.name: tensor for tensor in tensors})
    outputs = [Output(Path(str(number)), lambda _: formula) for number in range(n_outputs)]
    return Job(source, [source, source], outputs, block, reads_base=base)


def test_a_tensor_without_passes_is_cut_into_ranges():
    tensor = view("w", 2 * BLOCKS_PER_RANGE * BLOCK + 5)
    parts = plan_parts(job(Rule(), tensor), [tensor])
    step = BLOCKS_PER_RANGE * BLOCK
    assert [(part.first, part.stop) for part in parts] == [(0, step), (step, 2 * step), (2 * step, 2 * step + 5)]
    assert all(len(part.formulas) == 1 for part in parts)


def test_tensors_with_passes_stay_whole_and_the_largest_come_first():
    tensors = [view("small", 3), view("ids", 9, dtype="I64"), view("large", 50 * BLOCK), view("scalar")]
    parts = plan_parts(job(Rule(n_passes=1), *tensors), tensors)
    assert [(part.tensor.name, part.n_elements) for part in parts] == [
        ("large", 50 * BLOCK), ("small", 3), ("scalar", 1), ("ids", 9),
    ]  # fmt: skip


def test_files_are_finished_one_by_one_those_with_the_longest_work_of_one_thread_first():
    views = [view("a", 2), view("b", 9 * BLOCK), view("c", 5), view("d", 7), view("ids", 9, dtype="I64")]
    tensors = [replace(each, file=Path(file)) for each, file in zip(views, "12211", strict=True)]
    parts = plan_parts(job(Rule(n_passes=1), *tensors), tensors)
    assert [(str(part.tensor.file), part.tensor.name) for part in parts] == [
        ("2", "b"), ("2", "c"), ("1", "d"), ("1", "a"), ("1", "ids"),
    ]  # fmt: skip
    parts = plan_parts(job(Rule(), *tensors), tensors)
    assert [part.tensor.name for part in parts] == ["a", "d", "ids", "b", "c"]


def test_a_block_of_whole_rows_holds_what_fits_but_one_row_at_least():
    tensors = [view("w", 9, 1000), view("wide", 2, BLOCK + 1), view("scalar")]
    parts = plan_parts(job(Rule(whole_rows=True), *tensors), tensors)
    assert [part.block_elements for part in parts] == [65 * 1000, BLOCK + 1, BLOCK]


def test_an_empty_tensor_is_no_work():
    tensor = view("none", 0, 3)
    assert plan_parts(job(Rule(whole_rows=True), tensor), [tensor]) == []


def test_bytes_read_count_every_source_and_every_pass():
    tensors = [view("w", 10), view("ids", 3, dtype="I64")]
    twice = job(Rule(n_passes=1), *tensors, base=True)
    # 10 elements of 4 bytes, base and two candidates, two readings; 3 integers of 8 bytes, once.
    assert count_bytes_read(twice, plan_parts(twice, tensors)) == 10 * 4 * 3 * 2 + 3 * 8


def test_bytes_read_count_one_pass_of_those_that_need_not_see_all():
    tensors = [view("w", 10)]
    short = job(ShortRule(n_passes=4), *tensors, base=True)
    assert count_bytes_read(short, plan_parts(short, tensors)) == 10 * 4 * 3 * 2


def test_several_outputs_of_a_formula_with_passes_are_refused():
    tensor = view("w", 10)
    with pytest.raises(ValueError, match=r"'w': the formula must see all .*; merge one after the other"):
        plan_parts(job(Rule(n_passes=1), tensor, n_outputs=2), [tensor])


def test_blocks_that_reductions_cannot_use_are_refused():
    tensor = view("w", 10)
    with pytest.raises(ValueError, match="a formula with passes needs a multiple of 65536; found 1000"):
        plan_parts(job(Rule(n_passes=1), tensor, block=1000), [tensor])
