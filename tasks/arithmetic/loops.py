"""The modules of `tasks.arithmetic.compiled`, each imported when first used: numba costs time and memory."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.arithmetic.compiled import consensus, differences, dot_products, random_masks, row_ranks, selection

__all__ = ["consensus", "differences", "dot_products", "random_masks", "row_ranks", "selection"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"tasks.arithmetic.compiled.{name}")
