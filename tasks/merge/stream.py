"""Stream a checkpoint's tensors through a merge, straight to their place in the output.

Memory is bounded by the buffers of the threads, whatever the size of the model or of a tensor. Where every element of
the output depends on the same element of the inputs only, ranges of a tensor go to any thread. A formula with passes
keeps its tensor to one thread, block after block. Either way neither the size of blocks nor the number of threads
changes a byte.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tasks.merge.blocks import BlockSizes, Buffers, OnWritten, copy_part, merge_part
from tasks.merge.device import N_SLOTS, DeviceBuffers
from tasks.merge.job import Job, Part
from tasks.merge.sources import extra_elements
from tasks.messages import list_some
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES
from tasks.torch_when_used import one_thread

logger = logging.getLogger(__name__)

_Found = tuple[str, set[str]]
"""A tensor's name, and the candidates that have it with another content."""


def count_threads() -> int:
    """Threads that help: a few cores are faster than the memory behind all of them."""
    return min(4, len(os.sched_getaffinity(0)))


def stream_tensors(
    job: Job,
    parts: Sequence[Part],
    on_written: OnWritten,
    report_progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> None:
    """Write every tensor to its place in every output.

    Floating tensors are combined from the sources. Integer and boolean ones are copied from the base; a warning names
    those that differ in a candidate.

    Args:
        job: What is merged into what.
        parts: What is written, as `plan_parts` cut it.
        on_written: Called after every few blocks, in the thread that wrote them.
        report_progress: Called in this thread with bytes written and bytes in all.
        n_threads: When left out the job's, else `count_threads()`, or on a device one for each of its `N_SLOTS`.

    Raises:
        NonFiniteError: a source holds NaN or infinity, or the result overflows the output's dtype.
        CheckpointError: a source's file became shorter.
        DeviceError: the device has too little free memory.
    """
    n_threads = n_threads or job.n_threads or (N_SLOTS if job.device else count_threads())
    idle = _make_buffers(job, parts, n_threads)
    total = len(job.outputs) * sum(part.n_bytes for part in parts)
    cancelled = threading.Event()
    events: queue.SimpleQueue[int | Future[_Found]] = queue.SimpleQueue()

    def tell(file: Path, start: int, stop: int) -> None:
        on_written(file, start, stop)
        events.put(stop - start)

    def run(part: Part) -> _Found:
        buffers = idle.get()
        try:
            if part.tensor.dtype not in FLOAT_DTYPES:
                return part.tensor.name, copy_part(job, part, buffers, cancelled, tell)
            merge_part(job, part, buffers, cancelled, tell)
            return part.tensor.name, set()
        finally:
            idle.put(buffers)

    with one_thread(), ThreadPoolExecutor(n_threads, thread_name_prefix="merge") as pool:
        try:
            for part in parts:
                pool.submit(run, part).add_done_callback(events.put)
            differing = _follow(events, len(parts), total, report_progress)
        except BaseException:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
    _warn_of_differences({name: sources for name, sources in sorted(differing.items()) if sources})


def _make_buffers(job: Job, parts: Iterable[Part], n_threads: int) -> "queue.SimpleQueue[Buffers]":
    """Buffers for every thread, wide enough for the widest block of all parts."""
    sources = [job.base, *job.candidates]
    input_bytes = output_bytes = sum_bytes = 0
    for part in {part.tensor.name: part for part in parts}.values():
        n_elements = min(part.block_elements, part.tensor.n_elements)
        output_bytes = max(output_bytes, n_elements * DTYPE_BYTES[part.tensor.dtype])
        sum_bytes = max(sum_bytes, n_elements * 4)
        for source in sources:
            if view := source.describe(part.tensor.name):
                size = DTYPE_BYTES[view.dtype]
                input_bytes = max(input_bytes, (n_elements + extra_elements(source, view.name)) * size)
                sum_bytes = max(sum_bytes, n_elements * size)
    idle: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
    sizes = BlockSizes(len(job.sources), input_bytes, output_bytes, sum_bytes)
    for _ in range(n_threads):
        idle.put(DeviceBuffers(sizes, job.device) if job.device else Buffers(sizes))
    return idle


def _follow(
    events: "queue.SimpleQueue[int | Future[_Found]]",
    n_parts: int,
    total: int,
    report_progress: Callable[[int, int], None] | None,
) -> dict[str, set[str]]:
    """Wait for all parts and report what was written; what they found, by tensor.

    Raises:
        Exception: what the first part to fail has raised.
    """
    differing: dict[str, set[str]] = {}
    done = 0
    while n_parts:
        event = events.get()
        if isinstance(event, Future):
            name, found = event.result()
            differing.setdefault(name, set()).update(found)
            n_parts -= 1
        else:
            done += event
            if report_progress:
                report_progress(done, total)
    return differing


def _warn_of_differences(differing: Mapping[str, set[str]]) -> None:
    if not differing:
        return
    listed = [f"{name} ({', '.join(sorted(sources))})" for name, sources in differing.items()]
    logger.warning(
        "integer tensors are never averaged; the base's are kept though these candidates have others: %s",
        list_some(listed),
    )
