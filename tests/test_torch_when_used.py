"""torch is imported late and is then held to one thread, or is held if it was there, and in the end is as before."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch

from tasks import torch_when_used
from tasks.torch_when_used import one_thread

Found = TypeVar("Found")


def test_threads_are_as_before_in_the_end():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            with one_thread():
                assert torch.get_num_threads() == 1
            # The outer one still holds it.
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_it_has_is_torchs():
    assert torch_when_used.float32 is torch.float32
    own = {name for name in vars(torch_when_used) if not name.startswith("_")}
    assert own == {"one_thread"} and not hasattr(torch, "one_thread")


def test_it_is_imported_when_used_and_held_by_whoever_is_first():
    program = """
import os, sys, threading
from tasks import torch_when_used
from tasks.torch_when_used import one_thread
loaded, found = [lambda: "torch" in sys.modules][0], []
with one_thread():
    pass
found.append(loaded())
with one_thread():
    threads = [threading.Thread(target=lambda: torch_when_used.float32) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
    import torch
    found.append(torch.get_num_threads())
found.append(torch.get_num_threads())
print(found)
"""
    environment = {"OMP_NUM_THREADS": "2", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.strip() == f"[False, 1, {min(2, len(os.sched_getaffinity(0)))}]"


def in_a_thread(run: Callable[[], Found]) -> Found:
    """What a new thread returns, or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


@pytest.fixture
def two_threads() -> Generator[None]:
    """torch uses two threads, whatever it did before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_that_overlap_are_held_each_and_let_go_each():
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        assert [each.submit(torch.get_num_threads).result(60) for each in (one, other)] == [2, 2]
        held, holds = one_thread(), one_thread()
        one.submit(held.__enter__).result(60)
        other.submit(holds.__enter__).result(60)
        assert [each.submit(torch.get_num_threads).result(60) for each in (one, other)] == [1, 1]
        one.submit(held.__exit__, None, None, None).result(60)
        assert [each.submit(torch.get_num_threads).result(60) for each in (one, other)] == [2, 1]
        # Those that come still help the other.
        assert in_a_thread(torch.get_num_threads) == 1
        other.submit(holds.__exit__, None, None, None).result(60)
        assert [each.submit(torch.get_num_threads).result(60) for each in (one, other)] == [2, 2]
        assert in_a_thread(torch.get_num_threads) == 2


@pytest.mark.usefixtures("two_threads")
def test_a_thread_that_is_new_to_torch_while_another_holds_it_has_as_many_as_usual_afterwards():
    def hold() -> tuple[int, int]:
        with one_thread():
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    with one_thread():
        assert in_a_thread(hold) == (1, 2)
        assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("two_threads")
def test_threads_may_come_and_go_at_once():
    def hold(_: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for _ in range(50):
            with one_thread():
                inside = torch.get_num_threads()
            found.append((inside, torch.get_num_threads()))
        return found

    with ThreadPoolExecutor(4) as pool:
        assert all(found == [(1, 2)] * 50 for found in pool.map(hold, range(4)))
    assert (torch.get_num_threads(), in_a_thread(torch.get_num_threads)) == (2, 2)
