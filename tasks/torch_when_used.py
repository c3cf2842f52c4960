"""torch, imported when something of it is first used.

It takes a second or more to import, and a merge on the processor mostly needs nothing of it: files are read, combined
and written by the library in C (`tasks.arithmetic.library`). Modules that such a merge runs through say

    if TYPE_CHECKING:
        import torch
    else:
        from tasks import torch_when_used as torch
"""

# Under names that torch has not, as those that it has are looked up there.
import sys as _sys
import threading as _threading
from collections.abc import Generator as _Generator
from contextlib import contextmanager as _contextmanager
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import Any as _Any

_lock = _threading.RLock()
_loaded: _ModuleType | None = None
"""torch once it is whole: while it is imported its module is there, but not yet what is in it."""
_n_alone = 0
"""How many threads are in `one_thread`."""
_usual: int | None = None
"""How many threads torch would use by itself; known while it is held to one."""


class _Own(_threading.local):
    """Of each thread: how many `one_thread` it is in."""

    depth = 0


_own = _Own()


def __getattr__(name: str) -> _Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_loaded or _load(), name)


@_contextmanager
def one_thread() -> _Generator[None]:
    """Let each of our threads compute alone: torch's own would wait for each other at every block.

    That is so for the calling thread and for those that first use torch meanwhile, also if torch is imported only
    meanwhile. Contexts in several threads may overlap.
    """
    before = None if _own.depth else _enter()
    _own.depth += 1
    try:
        yield
    finally:
        _own.depth -= 1
        if not _own.depth:
            _leave(before)


def _enter() -> int | None:
    """Hold the calling thread, if torch is there; how many threads it had."""
    global _n_alone
    with _lock:
        before = _hold(_load()) if "torch" in _sys.modules else None
        _n_alone += 1
        return before


def _leave(before: int | None) -> None:
    """Let the calling thread have as many again, and all that will come, unless another still holds torch."""
    global _n_alone, _usual
    with _lock:
        _n_alone -= 1
        if _usual is None:
            return
        torch = _load()
        torch.set_num_threads(before or _usual)
        # That was said for this thread and for all that will first use torch, for which another number may be right.
        others = _threading.Thread(target=torch.set_num_threads, args=(1 if _n_alone else _usual,))
        others.start()
        others.join()
        if not _n_alone:
            _usual = None


def _load() -> _ModuleType:
    global _loaded
    with _lock:
        found = _import_module("torch")
        if _n_alone and _usual is None:
            _hold(found)
        _loaded = found
        return found


def _hold(torch: _ModuleType) -> int:
    """Hold the calling thread and all that will first use torch; how many it had, or would have."""
    global _usual
    before: int = torch.get_num_threads()
    if _usual is None:
        _usual = before
    elif before == 1:
        # It uses torch for the first time, while another holds it.
        before = _usual
    torch.set_num_threads(1)
    return before
