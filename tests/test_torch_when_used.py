"""torch is imported late and is then held to one thread, or is held if it was there, and in the end is as before."""

import os
import subprocess
import sys
import threading

import torch

from tasks import torch_when_used
from tasks.torch_when_used import one_thread


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


def test_threads_may_come_and_go_at_once():
    before = torch.get_num_threads()
    barrier = threading.Barrier(4)

    def hold() -> None:
        for _ in range(200):
            with one_thread():
                pass
        barrier.wait(60)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert torch.get_num_threads() == before
