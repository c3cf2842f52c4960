"""Compute a merge on a GPU: while one block is read, others are on their way there, summed, on their way back, written.

Every thread has a slot: page-locked host memory for a block of each source and of the result, as much memory on the
device, and a stream of its own. In a stream everything happens in order: the blocks are copied to the device, combined
and cast there, checked, copied back. Its thread then waits and writes. Streams do not wait for each other, so that
copies of one slot overlap with sums of another, and with the reading and writing of all others.

Bytes may differ from those of the processor, as CUDA may round a product before it is added, or not: by 1 unit in the
last place of the output's dtype, or, where terms cancel, by one rounding in float32 of the largest of them per source.

With the device `cpu` the same code runs without streams and page-locked memory, and gives the processor's bytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.arithmetic.block import Block, torch_dtype
from tasks.arithmetic.method import Method
from tasks.devices import resolve_devices
from tasks.errors import DeviceError
from tasks.merge.blocks import BlockSizes, Buffers, plain_memory
from tasks.merge.job import Job
from tasks.merge.non_finite import is_finite
from tasks.merge.sources import describe
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES, TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

logger = logging.getLogger(__name__)

# Four that read and write, as without a GPU, while two wait for it.
N_SLOTS = 6
# What all slots together take on the device, and at most so much page-locked memory on the host.
DEVICE_BYTES = 2 << 30
# So many that starting a copy or a kernel (some microseconds) is nothing beside it.
BLOCK_ELEMENTS = 8 << 20


def computing_device(device: str, method: Method) -> str | None:
    """The GPU that computes; None where the processor does: as asked, or because the method cannot on another.

    Raises:
        RecipeError: the device is not there, or its name has another form.
    """
    if device == "cpu":
        return None
    (name,) = resolve_devices([device])
    if name.startswith("cpu"):
        return None
    if not method.on_device:
        logger.info("method %s is merged by the processor: its formula cannot be computed on %s", method.name, name)
        return None
    return name


def place_on(device: str, job: Job, tensors: Iterable[TensorView], device_bytes: int = DEVICE_BYTES) -> Job:
    """The job in blocks that suit a device.

    Args:
        device: As torch names it.
        job: Its formulas are those of a method that is `on_device`.
        tensors: What will be written.
        device_bytes: For the memory of all slots.
    """
    floating = [tensor for tensor in tensors if tensor.dtype in FLOAT_DTYPES]
    widest = max((_element_bytes(job, tensor) for tensor in floating), default=1)
    block_elements = max(1, min(BLOCK_ELEMENTS, device_bytes // (N_SLOTS * widest)))
    return replace(job, device=device, block_elements=block_elements, blocks_per_range=1)


def _element_bytes(job: Job, tensor: TensorView) -> int:
    """What one element of a block takes on the device: every source, the result, the sum, two more for the formula."""
    sources = [describe(source, tensor.name).dtype for source in job.sources]
    sum_bytes = DTYPE_BYTES["F64" if "F64" in sources else "F32"]
    return sum(DTYPE_BYTES[dtype] for dtype in sources) + DTYPE_BYTES[tensor.dtype] + 3 * sum_bytes


class DeviceBuffers(Buffers):
    """A slot.

    Raises:
        DeviceError: the device has too little free memory.
    """

    are_here = False

    def __init__(self, sizes: BlockSizes, device: str):
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        # Memory belongs to the stream in which it is asked for, and is given to no other before that has done its work.
        with self.computing():
            make = plain_memory if self._stream is None else _page_locked
            super().__init__(replace(sizes, sum_bytes=0), make)
            self._total = torch.frombuffer(make(8), dtype=torch.float64)
            try:
                self._blocks = [_reserve(sizes.input_bytes, self._device) for _ in range(sizes.n_sources)]
                self._device_sum = _reserve(sizes.sum_bytes, self._device)
                self._result = _reserve(sizes.output_bytes, self._device)
            except torch.OutOfMemoryError as error:
                raise DeviceError(
                    f"{device}: there is no room to merge on this device; free its memory, or write "
                    f"merge.device: cpu, which is about as fast: {error}"
                ) from error
        # A thread that waits for it sleeps, and leaves its core to those that read and write.
        self._event = torch.cuda.Event(blocking=True) if self._stream else None

    @contextmanager
    def computing(self) -> Generator[None]:
        """All that torch is asked for in this thread happens in the slot's stream, and is done at the end."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            try:
                yield
            finally:
                # After an error, too: what is still being copied must not be used for anything else.
                self._stream.synchronize()

    def bring(self, blocks: Sequence[Block]) -> Sequence[Tensor]:
        """Begin to copy the blocks of all sources to the device; `cast` waits for it."""
        return [
            _vector(memory, block.dtype, len(block)).copy_(block, non_blocking=True)
            for block, memory in zip((block.tensor() for block in blocks), self._blocks, strict=True)
        ]

    def empty_sum(self, dtype: torch.dtype, n_elements: int) -> Tensor:
        """(n_elements,) on the device."""
        return _vector(self._device_sum, dtype, n_elements)

    def cast(self, total: Tensor, dtype: str) -> bool:
        """Round on the device, copy into `output`, and wait; whether the result holds neither NaN nor infinity."""
        result = _vector(self._result, torch_dtype(dtype), len(total)).copy_(total)
        copied = Block(self.output, dtype, len(total)).tensor().copy_(result, non_blocking=True)
        # NaN or infinity shows in the sum; only a sum of float64 can overflow by itself.
        self._total.copy_(result.sum(dtype=torch.float64).reshape(1), non_blocking=True)
        if self._event is not None:
            self._event.record()
            self._event.synchronize()
        return math.isfinite(float(self._total)) or is_finite(copied)


def _page_locked(n_bytes: int) -> memoryview:
    """Memory that a GPU reads and writes by itself while this process goes on."""
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy().data


def _reserve(n_bytes: int, device: torch.device) -> Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8, device=device)


def _vector(memory: Tensor, dtype: torch.dtype, n_elements: int) -> Tensor:
    return memory[: n_elements * dtype.itemsize].view(dtype)
