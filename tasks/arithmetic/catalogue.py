"""The merge methods there are: one file each in `tasks/arithmetic/methods/`, found by its name."""

import importlib
import pkgutil

from tasks.arithmetic import methods
from tasks.arithmetic.method import Method

ENGINE_VERSION = 2
"""Raised by hand when equal inputs begin to give other bytes."""

METHOD_NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(methods.__path__)))
"""Known without importing any of them."""


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in METHOD_NAMES:
        raise ValueError(f"there is no merge method {name!r}; methods are {', '.join(METHOD_NAMES)}")
    method: Method = importlib.import_module(f"{methods.__name__}.{name}").METHOD
    return method
