"""What tests/test_devices.py calls in worker processes; imports nothing heavy, so that a worker starts at once."""

import logging
import os
import sys
import time
from pathlib import Path

from tasks.workers.main import counting_parts, report_progress


def echo(device, *arguments):
    return (device, *arguments)


def process_id(device):
    return os.getpid()


def variables(device, *names):
    return [os.environ.get(name) for name in names]


def is_imported(device, module):
    return module in sys.modules


def torch_threads(device):
    import torch

    return torch.get_num_threads()


def log_and_report(device):
    logging.getLogger("tasks.score").info("half of %d", 10)
    logging.getLogger("tasks.score").debug("a detail")
    report_progress(5, 10)
    report_progress(10, 10)


def count_parts(device):
    with counting_parts() as report:
        report_progress(1, 1000)
        report(1, 2)
        log_and_report(device)
        report(2, 2)
    report_progress(3, 3)


def print_text(device):
    os.write(1, b"printed in the worker\n")


def die(device, number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(device, code):
    os._exit(code)


def start_child_and_sleep(device, file):
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    write(file, str(child))
    time.sleep(60)


def meet(device, mine, theirs):
    """Return only if another call runs at the same time."""
    write(mine, "here")
    return wait_for(theirs)


def hold(device, started, end):
    write(started, str(os.getpid()))
    wait_for(end)
    return device


def fail(device, text):
    raise ValueError(text)


class Unpicklable(Exception):
    def __init__(self, code, text):
        super().__init__(text)


def fail_unpicklable(device):
    raise Unpicklable(3, "cannot be rebuilt from one argument")


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def run_out_of_memory(device):
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def run_out_of_memory_in_a_library(device):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def lose_device(device):
    try:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    except RuntimeError as error:
        raise ValueError("the model cannot be loaded") from error


def give_lambda(device):
    return lambda: None


def write(file, text):
    partial = Path(f"{file}.partial")
    partial.write_text(text)
    partial.rename(file)


def wait_for(file, seconds=120):
    end = time.monotonic() + seconds
    while not Path(file).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{file} did not appear")
        time.sleep(0.01)
    return True


def note(device, path, line):
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
