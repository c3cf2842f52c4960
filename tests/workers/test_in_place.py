"""Calls in a process that somebody else started for one task: this one, and one that may be killed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import functions_on_worker as on_worker
import pytest

from tasks.devices import call_on_device
from tasks.errors import DeviceError
from tasks.workers.in_place import EXIT_TIME_LIMIT, call_in_place, device_in_place, leased_in_place


class UnportableError(Exception):
    """Like one that holds a lock or a handle: it cannot leave its process."""

    def __init__(self):
        super().__init__("row 3 is broken")
        self.lock = threading.Lock()


def raise_unportable(device):
    raise UnportableError


def run_out_of_memory(device):
    raise MemoryError("9 GB")


def test_a_call_runs_in_this_process_on_the_given_device_and_leases_nothing(tmp_path: Path):
    with leased_in_place("cuda:0"):
        assert call_on_device(["cpu:7"], on_worker.echo, 1, lock_folder=tmp_path) == ("cuda:0", 1)
        assert call_on_device("auto", on_worker.process_id, lock_folder=tmp_path) == os.getpid()
    assert device_in_place() is None
    assert list(tmp_path.iterdir()) == []


def test_progress_is_reported_as_from_a_worker():
    reports = list[tuple[int, int]]()
    with leased_in_place("cpu"):
        call_on_device("auto", on_worker.count_parts, report_progress=lambda done, total: reports.append((done, total)))
        call_on_device("auto", on_worker.log_and_report)
    assert reports == [(1, 2), (2, 2), (3, 3)]


def test_errors_are_those_of_a_worker():
    with leased_in_place("cpu"):
        with pytest.raises(ValueError, match="no such row"):
            call_on_device("auto", on_worker.fail, "no such row")
        with pytest.raises(DeviceError, match=r"out of memory: 9 GB; lower score.max_length"):
            call_on_device("auto", run_out_of_memory)
        with pytest.raises(DeviceError, match="UnportableError: row 3 is broken"):
            call_on_device("auto", raise_unportable)


def test_a_call_within_its_limit_returns_and_the_process_lives_on():
    assert call_in_place("cpu", on_worker.echo, (), 0.05, None) == ("cpu",)
    threading.Event().wait(0.1)


def test_a_call_over_its_limit_ends_its_process():
    code = (
        "import time\n"
        "from tasks.workers.in_place import call_in_place\n"
        "call_in_place('cpu', lambda device: time.sleep(60), (), 0.1, None)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == EXIT_TIME_LIMIT
    assert "ran longer than its limit of 0.1 s" in ended.stderr
