"""Work on several files at once, in threads that neither an error nor Ctrl-C has to wait for."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")

THREADS = 8
# So long the others may take to notice that one failed. A thread that hangs in the network is left behind.
_SETTLE_SECONDS = 2.0

Progress = Callable[[int, int], None]
"""Told the bytes that are here and the bytes there will be, over all files of one fetch; called from any thread."""


class _Stopped(Exception):
    """Another file failed, or the user pressed Ctrl-C."""


class Counter:
    """Adds up the progress of several files; ends their transfers when `stop` is set."""

    def __init__(self, total: int, report: Progress | None):
        self.stop = threading.Event()
        self._total, self._report = total, report
        self._done = 0
        self._lock = threading.Lock()

    def add(self, n_bytes: int) -> None:
        """Note that bytes came (or, negative, were thrown away)."""
        if self.stop.is_set():
            raise _Stopped("another file failed, or the fetch was interrupted")
        with self._lock:
            self._done += n_bytes
            if self._report is not None:
                self._report(self._done, self._total)


def in_parallel(
    names: Sequence[str], work: Callable[[str], Result], stop: threading.Event | None = None
) -> dict[str, Result]:
    """Name to what `work` made of it, in the order of `names`.

    Args:
        names: What is worked on.
        work: Called in threads, with the context variables of the caller.
        stop: Set when the rest is to be left: after an error, and when the caller is interrupted.

    Raises:
        Exception: the first that `work` raised.
    """
    stop = stop or threading.Event()
    results: dict[str, Result] = {}
    errors: list[BaseException] = []
    waiting = deque(names)

    def run() -> None:
        while waiting and not stop.is_set():
            try:
                name = waiting.popleft()
            except IndexError:  # Another thread took the last.
                return
            try:
                results[name] = work(name)
            except BaseException as error:
                errors.append(error)
                stop.set()

    contexts = [copy_context() for _ in range(min(THREADS, len(names)))]
    # Daemons: the interpreter does not wait for them at its end, as it does for those of a thread pool.
    threads = [threading.Thread(target=context.run, args=(run,), daemon=True) for context in contexts]
    for thread in threads:
        thread.start()
    try:
        while not errors and any(thread.is_alive() for thread in threads):
            next(thread for thread in threads if thread.is_alive()).join(0.05)
    finally:
        stop.set()
        deadline = time.monotonic() + _SETTLE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    return {name: results[name] for name in names}
