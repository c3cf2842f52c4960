"""Stream a checkpoint's tensors through a merge, straight to their place in the output.

Memory is bounded by the buffers of the threads, whatever the size of the model or of a tensor. Every element of the
output depends on the same element of the inputs only, so neither the size of blocks nor the number of threads
changes a byte.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

import torch

from tasks.merge.blocks import Buffers, Job, Range, copy_range, merge_range
from tasks.messages import list_some
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES, TensorView

logger = logging.getLogger(__name__)

# Small enough that a block of each input and the sum stay in a core's cache, large enough that calls cost little.
BLOCK_ELEMENTS = 256 * 1024
# What a thread takes on at a time. Files are opened once per range, so that their number meets no limit.
_BLOCKS_PER_RANGE = 32

OnWritten = Callable[[str, int, int], None]
"""Told the path of an output file (inside the checkpoint), and where in it bytes were written: first, last + 1."""


def count_threads() -> int:
    """Threads that help: a few cores are faster than the memory behind all of them."""
    return min(4, len(os.sched_getaffinity(0)))


def stream_tensors(
    job: Job,
    tensors: Iterable[TensorView],
    on_written: OnWritten,
    report_progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> None:
    """Write every tensor to its place in the output.

    Floating tensors are combined from the sources. Integer and boolean ones are copied from the base; a warning names
    those that differ in a source.

    Args:
        job: What is merged into what.
        tensors: What is written, as `plan_layout` placed it.
        on_written: Called after each range, in the thread that wrote it.
        report_progress: Called in this thread with bytes written and bytes in all.
        n_threads: `count_threads()` when left out.

    Raises:
        NonFiniteError: a source holds NaN or infinity, or the sum overflows the output's dtype.
        CheckpointError: a source's file became shorter.
    """
    parts = list(_split(tensors, job.block_elements * _BLOCKS_PER_RANGE))
    n_threads = n_threads or count_threads()
    idle = _make_buffers(job, parts, n_threads)
    cancelled = threading.Event()

    def run(part: Range) -> list[str]:
        buffers = idle.get()
        try:
            differing = _run_range(job, part, buffers, cancelled)
        finally:
            idle.put(buffers)
        if not cancelled.is_set():
            on_written(str(part.tensor.file), part.start, part.start + part.n_bytes)
        return differing

    differing: dict[str, set[str]] = {}
    done, total = 0, sum(part.n_bytes for part in parts)
    with _one_torch_thread(), ThreadPoolExecutor(n_threads, thread_name_prefix="merge") as pool:
        try:
            futures = {pool.submit(run, part): part for part in parts}
            for future in as_completed(futures):
                part = futures[future]
                differing.setdefault(part.tensor.name, set()).update(future.result())
                done += part.n_bytes
                if report_progress:
                    report_progress(done, total)
        except BaseException:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
    _warn_of_differences({name: sources for name, sources in sorted(differing.items()) if sources})


def _run_range(job: Job, part: Range, buffers: Buffers, cancelled: threading.Event) -> list[str]:
    if part.tensor.dtype not in FLOAT_DTYPES:
        return copy_range(job, part, buffers)
    merge_range(job, part, buffers, cancelled)
    return []


def _split(tensors: Iterable[TensorView], range_elements: int) -> Iterator[Range]:
    """Ranges of all tensors, in their order; a tensor without elements has none."""
    for tensor in tensors:
        for first in range(0, tensor.n_elements, range_elements):
            yield Range(tensor, first, min(first + range_elements, tensor.n_elements))


def _make_buffers(job: Job, parts: Iterable[Range], n_threads: int) -> "queue.SimpleQueue[Buffers]":
    """Buffers for every thread, wide enough for the widest element and the sum."""
    read = (view.dtype for source in job.sources for view in source.tensors.values())
    written = (part.tensor.dtype for part in parts)
    element_bytes = max([4, *(DTYPE_BYTES[dtype] for dtype in {*read, *written} & FLOAT_DTYPES)])
    idle: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
    for _ in range(n_threads):
        idle.put(Buffers(len(job.sources), job.block_elements, element_bytes))
    return idle


@contextmanager
def _one_torch_thread() -> Generator[None]:
    """Let each of our threads compute alone: torch's own would wait for each other at every block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warn_of_differences(differing: Mapping[str, set[str]]) -> None:
    if not differing:
        return
    listed = [f"{name} ({', '.join(sorted(sources))})" for name, sources in differing.items()]
    logger.warning(
        "integer tensors are never averaged; the base's are kept though these candidates have others: %s",
        list_some(listed),
    )
