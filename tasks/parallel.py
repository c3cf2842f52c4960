"""Several small requests at once: what a place answers in a moment each, but not one after the other."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from tasks.errors import CocktailError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_REQUESTS = 8


def map_requests(call: Callable[[Item], Result], items: Iterable[Item], at_once: int = MAX_REQUESTS) -> list[Result]:
    """Call with every item, several at a time.

    Args:
        call: Safe to run in several threads. Each sees the caller's context variables (who we are on S3 and the Hub).
        items: What it is called with.
        at_once: Threads at most.

    Returns:
        The results in the order of `items`.

    Raises:
        Exception: that of the first item, in order, whose call failed; calls that had not begun are not made.
    """
    waiting = list(items)
    if len(waiting) < 2:
        return [call(item) for item in waiting]
    pool = ThreadPoolExecutor(min(at_once, len(waiting)), thread_name_prefix="requests")
    try:
        # A context can be entered by one thread at a time, so each call gets a copy.
        futures = [pool.submit(copy_context().run, call, item) for item in waiting]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def call_all(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result | CocktailError]:
    """Call with each item, several at a time; every result, or the error of this project it ended with, in order."""

    def guarded(item: Item) -> Result | CocktailError:
        try:
            return function(item)
        except CocktailError as error:
            return error

    return map_requests(guarded, items)
