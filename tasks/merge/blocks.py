"""What one thread does: read a block of every source, combine, check, cast, write."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic.block import AnyNumbers, Block, torch_dtype
from tasks.arithmetic.method import Formula, OnePass, ShortPasses
from tasks.arithmetic.native import sum_rounded
from tasks.merge.job import Job, Output, Part
from tasks.merge.non_finite import is_finite, overflow_error, refuse_inputs
from tasks.merge.ranges import open_descriptor, write_range
from tasks.merge.sources import describe, reading_anywhere
from tasks.merge.whole_reads import WholeReads
from tasks.tensors import DTYPE_BYTES, TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

OnWritten = Callable[[Path, int, int], None]
"""Told an output file, and where in it bytes were written: first, last + 1."""


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """The most that a block takes."""

    n_sources: int
    """How many blocks are read to make one."""
    input_bytes: int
    """Of one source."""
    output_bytes: int
    sum_bytes: int
    """Of the sum before it is cast."""


def plain_memory(n_bytes: int) -> memoryview:
    """Memory of this process."""
    return memoryview(bytearray(n_bytes))


class Buffers:
    """The memory of one thread, the same for every block, and the arithmetic in it.

    Here both are this machine's processor's; `tasks.merge.device` has those of a GPU.
    """

    are_here = True
    """Whether blocks are combined where they were read."""

    def __init__(self, sizes: BlockSizes, make: Callable[[int], memoryview] = plain_memory):
        # Copying an integer tensor compares two blocks, so there are never fewer than two.
        self.inputs = [make(sizes.input_bytes) for _ in range(max(2, sizes.n_sources))]
        self.output = make(sizes.output_bytes)
        self._sum = plain_memory(sizes.sum_bytes)

    def computing(self) -> AbstractContextManager[None]:
        """Around all calls of the methods below that belong to one part."""
        return nullcontext()

    def bring(self, blocks: Sequence[Block]) -> Sequence[Tensor]:
        """The blocks of all sources, each (n,), where the formula computes."""
        return [block.tensor() for block in blocks]

    def empty_sum(self, dtype: torch.dtype, n_elements: int) -> Tensor:
        """(n_elements,) for the formula's result, where it computes; whatever it holds."""
        return torch.frombuffer(self._sum, dtype=dtype, count=n_elements)

    def cast(self, total: Tensor, dtype: str) -> bool:
        """Put a result, rounded once to the dtype, into `output`; whether it holds neither NaN nor infinity."""
        result = Block(self.output, dtype, len(total))
        rounded = sum_rounded([total], [1.0], result)
        return is_finite(result.tensor().copy_(total)) if rounded is None else rounded


def merge_part(job: Job, part: Part, buffers: Buffers, cancelled: threading.Event, on_written: OnWritten) -> None:
    """Combine a part of a floating tensor block by block, after the passes that its formula asks for.

    Raises:
        NonFiniteError: a source holds NaN or infinity, or the result overflows the output's dtype.
        CheckpointError: a source's file became shorter.
    """
    formulas = part.formulas or tuple(output.formula_of(part.tensor) for output in job.outputs)
    with ExitStack() as files:
        inputs = _OpenTensor(job, part.tensor, buffers, files)
        files.enter_context(buffers.computing())
        for number in range(formulas[0].n_passes):
            _observe(formulas[0], number, part, inputs, cancelled)
        writers = [
            _Writer(output, formula, part.tensor, inputs, files)
            for output, formula in zip(job.outputs, formulas, strict=True)
        ]
        step = part.block_elements * job.blocks_per_range
        for start in range(part.first, part.stop, step):
            stop = min(start + step, part.stop)
            for first in range(start, stop, part.block_elements):
                if cancelled.is_set():
                    return
                blocks = inputs.read(first, min(part.block_elements, stop - first))
                # Once for all outputs, and only if one needs it.
                bring = cache(partial(buffers.bring, blocks))
                for writer in writers:
                    writer.write(first, blocks, bring)
            _tell(job, part.tensor, start, stop, on_written)


def copy_part(job: Job, part: Part, buffers: Buffers, cancelled: threading.Event, on_written: OnWritten) -> set[str]:
    """Copy a part of an integer or boolean tensor from the base.

    Returns:
        Names of the candidates that have the tensor with another content.
    """
    name, size = part.tensor.name, DTYPE_BYTES[part.tensor.dtype]
    # A candidate that is the base itself has nothing to compare.
    own = job.base.describe(name)
    found = [(source, view) for source in job.candidates if (view := source.describe(name)) and view != own]
    # Not the same dtype (the shape is) means another content, and nothing to compare byte by byte.
    differing = {source.name for source, view in found if view.dtype != part.tensor.dtype}
    comparable = [source for source, view in found if view.dtype == part.tensor.dtype]
    with ExitStack() as files:
        read = files.enter_context(reading_anywhere(job.base, name))
        others = [(source.name, files.enter_context(reading_anywhere(source, name))) for source in comparable]
        targets = [files.enter_context(_open_output(output, part.tensor)) for output in job.outputs]
        for first in range(part.first, part.stop, part.block_elements):
            if cancelled.is_set():
                return differing
            n_elements = min(part.block_elements, part.stop - first)
            block = read(first, n_elements, buffers.inputs[0])
            for target in targets:
                write_range(target, part.tensor.start + first * size, block.memory)
            differing |= {
                other
                for other, read_other in others
                if not np.array_equal(_bits(block), _bits(read_other(first, n_elements, buffers.inputs[1])))
            }
    _tell(job, part.tensor, part.first, part.stop, on_written)
    return differing


class _OpenTensor:
    """One tensor in all sources of a job, open for reading."""

    def __init__(self, job: Job, tensor: TensorView, buffers: Buffers, files: ExitStack):
        self.tensor = tensor
        self.buffers = buffers
        self.sources = job.sources
        self.reads_base = job.reads_base
        self.views = [describe(source, tensor.name) for source in self.sources]
        readers = [files.enter_context(reading_anywhere(source, tensor.name)) for source in self.sources]
        self._readers = list(zip(readers, buffers.inputs, strict=False))
        self._whole_reads = WholeReads.of(readers, buffers.inputs)

    def read(self, first: int, n_elements: int) -> Sequence[Block]:
        """A block of every source; valid until the next is read."""
        found = self._whole_reads and self._whole_reads.read(first, n_elements, looks_for_nan=False)
        return found[0] if found else [read(first, n_elements, buffer) for read, buffer in self._readers]

    def read_finite(self, first: int, n_elements: int) -> Sequence[Block]:
        """The same.

        Raises:
            NonFiniteError: a source holds NaN or infinity.
        """
        found = self._whole_reads and self._whole_reads.read(first, n_elements, looks_for_nan=True)
        blocks, finite = found or (self.read(first, n_elements), False)
        if not finite and not all(map(is_finite, blocks)):
            refuse_inputs(self.tensor, self.sources, blocks)
        return blocks

    def used_by(self, output: Output) -> list[int]:
        """Indices of the blocks that an output is made of."""
        shift = int(self.reads_base)
        candidates = range(len(self.sources) - shift) if output.candidates is None else output.candidates
        return [*range(shift), *(index + shift for index in candidates)]

    def split(self, blocks: Sequence[AnyNumbers]) -> tuple[AnyNumbers | None, Sequence[AnyNumbers]]:
        """The base's block, if it is read, and the candidates'."""
        return (blocks[0], blocks[1:]) if self.reads_base else (None, blocks)


class _Writer:
    """Combines blocks of one tensor and writes the result into one output."""

    def __init__(self, output: Output, formula: Formula, tensor: TensorView, inputs: _OpenTensor, files: ExitStack):
        self._formula = formula
        self._tensor = tensor
        self._inputs = inputs
        self._used = inputs.used_by(output)
        wide = any(inputs.views[index].dtype == "F64" for index in self._used)
        # A wide sum stays torch's also where no wide block counts, as with a weight of zero for this tensor.
        self._in_one_pass = isinstance(formula, OnePass) and inputs.buffers.are_here and not wide
        self._sum_dtype = "F64" if wide else "F32"
        self._size = DTYPE_BYTES[tensor.dtype]
        self._target = files.enter_context(_open_output(output, tensor))

    def write(self, first: int, all_blocks: Sequence[Block], bring: Callable[[], Sequence[Tensor]]) -> None:
        """Combine, cast once, check and write the blocks that begin at element `first`.

        Args:
            first: Index in the tensor.
            all_blocks: (n,) of every source, as read.
            bring: Gives the same where the formula computes.
        """
        n_elements, buffers = all_blocks[0].numel(), self._inputs.buffers
        used = [all_blocks[index] for index in self._used]
        total, is_finite = None, None
        if self._in_one_pass:
            result = Block(buffers.output, self._tensor.dtype, n_elements)
            is_finite = cast(OnePass, self._formula).combine_rounded(first, *self._inputs.split(used), result)
        if is_finite is None:
            total = self._combine(first, bring())
            is_finite = buffers.cast(total, self._tensor.dtype)
        if not is_finite:
            refuse_inputs(self._tensor, [self._inputs.sources[index] for index in self._used], used)
            if total is None and not self._formula.n_passes:
                # How far it goes, which was not kept.
                total = self._combine(first, bring())
            raise overflow_error(self._tensor, total)
        write_range(self._target, self._tensor.start + first * self._size, buffers.output[: n_elements * self._size])

    def _combine(self, first: int, brought: Sequence[Tensor]) -> Tensor:
        """The combination of a block, not yet rounded."""
        base, candidates = self._inputs.split([brought[index] for index in self._used])
        empty = self._inputs.buffers.empty_sum(torch_dtype(self._sum_dtype), brought[0].numel())
        return self._formula.combine(first, base, candidates, empty)


def _observe(formula: Formula, number: int, part: Part, inputs: _OpenTensor, cancelled: threading.Event) -> None:
    """Show a formula the blocks of the tensor, in order: all, or as many as the pass needs."""
    stop = formula.extent(number) if isinstance(formula, ShortPasses) else part.stop
    for first in range(part.first, stop, part.block_elements):
        if cancelled.is_set():
            return
        # One NaN would make every norm and threshold of the tensor NaN, and its cause could no longer be told.
        read = inputs.read if number else inputs.read_finite
        blocks = read(first, min(part.block_elements, part.stop - first))
        formula.observe(number, first, *inputs.split(blocks))


def _bits(block: Block) -> NDArray[np.uint8]:
    return np.frombuffer(block.memory, np.uint8)


def _open_output(output: Output, tensor: TensorView) -> AbstractContextManager[int]:
    return open_descriptor(output.folder / tensor.file, os.O_WRONLY)


def _tell(job: Job, tensor: TensorView, first: int, stop: int, on_written: OnWritten) -> None:
    size = DTYPE_BYTES[tensor.dtype]
    for output in job.outputs:
        on_written(output.folder / tensor.file, tensor.start + first * size, tensor.start + stop * size)
