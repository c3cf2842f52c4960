"""The worker process of one device: it calls functions there, one after the other, and tells its parent all about it.

`tasks.workers.process` starts it as `python -m tasks.workers.main` and is the other end of the connection. It is no
fork and does not import the parent's main module, so a plain script, a notebook and Prefect's engine can all start it.
Nothing heavy is imported before a function needs it; what a function loads stays for the next one.
"""

import importlib
import logging
import logging.handlers
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tasks.errors import DeviceError, is_out_of_memory

EXIT_DEVICE_FAULT = 70
"""Exit code after a fault that leaves the device unusable for this process."""
PROJECT_LOGGERS = ("tasks", "flows")

Result = TypeVar("Result")

_PARENT_CHECK_SECONDS = 0.5

_line: "_Line | _Listener | None" = None


def report_progress(done: int, total: int) -> None:
    """Tell whoever waits for the current call how far it is; does nothing outside a worker."""
    if _line is not None:
        _line.send(("progress", done, total))


@contextmanager
def counting_parts() -> Generator[Callable[[int, int], None]]:
    """For calls whose work has large parts: a `report_progress` that counts these, while the usual one is silent."""
    global _line
    line, _line = _line, None
    try:
        yield lambda done, total: line.send(("progress", done, total)) if line else None
    finally:
        _line = line


def call_here(
    function: Callable[..., Result], arguments: tuple[Any, ...], report: Callable[[int, int], None] | None
) -> Result:
    """Call a function as a worker does, in a process that somebody else started for it alone.

    Args:
        function: What to call.
        arguments: Of the function.
        report: Called as `(done, total)` when the function calls `report_progress`.

    Returns:
        What the function returned. After a fault of CUDA the process ends instead.

    Raises:
        DeviceError: memory ran out.
        Exception: what the function raised, if it survives the way to another process, else a DeviceError with its
            text.
    """
    global _line
    outer, _line = _line, _Listener(report)
    try:
        return function(*arguments)
    except Exception as error:
        _, portable, _ = _describe(error)
        if portable is error:
            raise
        raise portable from None
    finally:
        _line = outer


def serve(parent_pid: int, connection_fd: int, *lease_fds: int) -> None:
    """Answer calls until the parent closes the connection or is gone.

    Args:
        parent_pid: Process without which this one has no purpose.
        connection_fd: Our end of a socket pair.
        lease_fds: The locked files that say the device is taken. Never touched: they are freed when this process ends.
    """
    global _line
    for descriptor in (connection_fd, *lease_fds):
        # A process that some function starts must neither keep the device leased nor the connection open.
        os.set_inheritable(descriptor, False)
    os.dup2(2, 1)  # stdout belongs to the command that started us, which may print JSON there
    threading.Thread(target=_end_with_parent, args=(parent_pid,), daemon=True).start()
    _line = _Line(Connection(connection_fd))
    logging.getLogger().addHandler(_LogForwarder(_line))
    try:
        while True:
            _answer(_line, _line.receive())
    except (EOFError, OSError):
        # The parent has no more calls. Leave without tearing down what the functions loaded: the kernel is faster.
        sys.stderr.flush()
        os._exit(0)


def _answer(line: "_Line", packed_call: bytes) -> None:
    try:
        _, reference, arguments, log_level = pickle.loads(packed_call)
        for name in PROJECT_LOGGERS:
            logging.getLogger(name).setLevel(log_level)
        line.send(("result", _find(reference)(*arguments)))
    except Exception as error:
        if line.is_closed:
            raise EOFError from error
        line.send(_describe(error))


def _find(reference: str) -> Callable[..., Any]:
    module, _, qualified_name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in qualified_name.split("."):
        found = getattr(found, name)
    return found


def _describe(error: Exception) -> tuple[str, Exception, str]:
    """The message for a call that failed; does not return where the device is lost with it."""
    text = traceback.format_exc()
    if is_out_of_memory(error):
        # Batches that can be halved were, down to a single text, before it came to this.
        error = DeviceError(
            f"out of memory: {error}; lower score.max_length (with loss: lm_cocktail, which halves no batches, "
            "score.batch_size), or use a device with more memory"
        )
    elif any("CUDA error" in str(cause) for cause in _causes(error)):
        # A CUDA context does not recover from such a fault: every later call here would fail as well.
        sys.stderr.write(text)
        sys.stderr.flush()
        os._exit(EXIT_DEVICE_FAULT)
    return "error", _portable(error), text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the way to another process, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return DeviceError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent(parent_pid: int) -> None:
    # Not prctl(PR_SET_PDEATHSIG): that fires when the parent's *thread* ends, and tasks run in short-lived threads.
    while os.getppid() == parent_pid:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


class _Line:
    """The connection to the parent; messages from several threads do not mix."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._sending = threading.Lock()
        self.is_closed = False

    def receive(self) -> bytes:
        return self._connection.recv_bytes()

    def send(self, message: tuple[Any, ...]) -> None:
        packed = pickle.dumps(message)
        with self._sending:
            try:
                self._connection.send_bytes(packed)
            except OSError:
                self.is_closed = True
                raise


class _Listener:
    """Stands where a line would, in a process that has no parent to tell."""

    def __init__(self, report: Callable[[int, int], None] | None):
        self._report = report

    def send(self, message: tuple[Any, ...]) -> None:
        kind, *content = message
        if kind == "progress" and self._report is not None:
            self._report(*content)


class _LogForwarder(logging.handlers.QueueHandler):
    """Sends log records to the parent, which gives them to its own handlers."""

    def __init__(self, line: _Line):
        super().__init__(None)  # type: ignore[arg-type]  # `enqueue` replaces the queue
        self._line = line

    def enqueue(self, record: logging.LogRecord) -> None:
        self._line.send(("log", record.__dict__))


if __name__ == "__main__":
    # The module that functions import is another object than `__main__`, with its own `_line`; serve from that one.
    from tasks.workers.main import serve as serve_here

    serve_here(*map(int, sys.argv[1:]))
