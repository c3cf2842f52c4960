"""Several requests at once."""

import threading
from contextvars import ContextVar

import pytest

from tasks.parallel import map_requests

who: ContextVar[str] = ContextVar("who", default="nobody")


def test_results_come_in_the_order_of_the_items_whoever_is_first():
    second_is_done = threading.Event()

    def call(item: int) -> int:
        if item == 1:
            assert second_is_done.wait(10)
        if item == 2:
            second_is_done.set()
        return item * item

    assert map_requests(call, [1, 2, 3]) == [1, 4, 9]
    assert map_requests(call, []) == []


def test_every_call_sees_the_context_of_the_caller():
    token = who.set("me")
    try:
        assert map_requests(lambda _: who.get(), range(20)) == ["me"] * 20
    finally:
        who.reset(token)


def test_the_error_of_the_first_item_that_failed_is_raised():
    def call(item: int) -> int:
        if item % 2:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 1"):
        map_requests(call, range(6))


def test_no_more_calls_run_at_once_than_allowed():
    running, most, lock = 0, 0, threading.Lock()
    pause = threading.Event()

    def call(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pause.wait(0.002)
        with lock:
            running -= 1

    map_requests(call, range(12), at_once=3)
    assert most <= 3
