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
_n_alone = 0
"""How many contexts of `one_thread` are open."""
_n_threads: int | None = None
"""What torch would use by itself; known, and to be restored, while it is held to one thread."""


def __getattr__(name: str) -> _Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_torch(), name)


@_contextmanager
def one_thread() -> _Generator[None]:
    """Let each of our threads compute alone: torch's own would wait for each other at every block.

    Also if torch is imported only meanwhile.
    """
    global _n_alone, _n_threads
    with _lock:
        _n_alone += 1
        if "torch" in _sys.modules:
            _hold(_torch())
    try:
        yield
    finally:
        with _lock:
            _n_alone -= 1
            if not _n_alone and _n_threads is not None:
                _torch().set_num_threads(_n_threads)
                _n_threads = None


def _torch() -> _ModuleType:
    found = _sys.modules.get("torch")
    if found is not None and not _n_alone:
        return found
    with _lock:
        found = _import_module("torch")
        if _n_alone:
            _hold(found)
        return found


def _hold(torch: _ModuleType) -> None:
    global _n_threads
    if _n_threads is None:
        _n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
