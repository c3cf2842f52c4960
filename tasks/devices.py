"""Devices: lease one, and run a function in that device's own worker process.

A device is named `cuda:<i>` or `cpu:<k>`; a worker on `cpu:<k>` computes with one thread. All users in this process
(threads, nested flows) share the workers; runs on one host share the devices through one lock file per device. The
lock is held by the worker process itself, so a device is free exactly when nothing is left in its memory.

    with open_devices("auto"):                      # keeps the workers, and what they loaded, between the calls
        call_on_device("auto", compute_losses, folder, timeout_seconds=3600)
"""

import ctypes
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, TypeVarTuple

from tasks.errors import DeviceError, RecipeError
from tasks.workers.leases import lock_file_of, take_lease, usable_lock_folder
from tasks.workers.process import ReportProgress, WorkerProcess

logger = logging.getLogger(__name__)

DeviceSetting = Literal["auto"] | Sequence[str]
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_NAME = re.compile(r"(cuda|cpu):(\d+)")
_MAX_CPU_WORKERS = 4
_POLL_SECONDS = 0.2


@dataclass(eq=False)
class DevicePool:
    """The devices of one setting, as all of its users in this process share them."""

    devices: tuple[str, ...]
    lock_files: tuple[Path, ...]
    """One per device, in the same order."""
    users: int = 0
    is_abandoned: bool = False
    waiting: deque[object] = field(default_factory=deque[object])
    """One ticket per call that waits for a device, the earliest first."""


# All three are guarded by `_changed`, which is notified when a device may have become free.
_changed = threading.Condition()
_pools: dict[tuple[Path, ...], DevicePool] = {}
_workers: dict[Path, WorkerProcess] = {}
_busy: set[Path] = set()


def resolve_devices(setting: DeviceSetting) -> tuple[str, ...]:
    """The devices a setting stands for.

    Args:
        setting: `auto` is every CUDA device that torch can use, else one CPU worker per usable core, at most four.

    Raises:
        RecipeError: a name has another form, is given twice, or is a GPU that is not there.
    """
    if setting == "auto":
        n_gpus = _count_gpus()
        return _numbered("cuda", n_gpus) or _numbered("cpu", min(_count_cores(), _MAX_CPU_WORKERS))
    names = [setting] if isinstance(setting, str) else list(setting)
    problems = [f"{name!r} has another form" for name in names if not _NAME.fullmatch(name)]
    problems += [f"{name!r} is given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if not problems and any(name.startswith("cuda") for name in names):
        n_gpus = _count_gpus()
        absent = [name for name in names if name.startswith("cuda") and int(name[5:]) >= n_gpus]
        problems = [f"{name!r} is not there: torch can use {n_gpus} CUDA devices here" for name in absent]
    if problems or not names:
        raise RecipeError(
            f"devices: {'; '.join(problems) or 'the list is empty'}; write auto, or a list of names such as "
            "cuda:0, cuda:1 or cpu:0"
        )
    return tuple(names)


@contextmanager
def open_devices(setting: DeviceSetting, lock_folder: Path | None = None) -> Generator[DevicePool]:
    """Keep workers between calls; when the last user of a device leaves, its worker ends and its lease is freed.

    Args:
        setting: See `resolve_devices`.
        lock_folder: Where the lock files lie; by default a folder of this user on this host.

    Raises:
        RecipeError: the setting names no usable devices.
        DeviceError: the lock folder cannot be used.
    """
    pool = _join(resolve_devices(setting), usable_lock_folder(lock_folder))
    try:
        yield pool
    except BaseException as error:
        if not isinstance(error, Exception):
            # Ctrl-C or the end of the flow run: other threads must not go on computing for nobody.
            _abandon(pool)
        raise
    finally:
        _leave(pool)


def call_on_device(
    setting: DeviceSetting,
    function: Callable[[str, *Arguments], Result],
    *arguments: *Arguments,
    timeout_seconds: float | None = None,
    report_progress: ReportProgress | None = None,
    lock_folder: Path | None = None,
) -> Result:
    """Call `function(device, *arguments)` in the worker process of a free device and wait for its result.

    Waits until a device is free. An idle worker is taken before a new one is started.

    Args:
        setting: See `resolve_devices`; workers of an open pool with these devices are used.
        function: A module's own function. In a worker it sees one device: its first argument is `cuda:0` or `cpu`.
        arguments: Small and picklable: paths and numbers, not tensors.
        timeout_seconds: Limit from the moment a device was free; then the worker is killed.
        report_progress: Called here as `(done, total)` when the function calls `tasks.workers.main.report_progress`.
        lock_folder: See `open_devices`.

    Raises:
        RecipeError: the setting names no usable devices.
        WorkerDiedError: the worker ended before it answered; trying again may help.
        WorkerTimeoutError: the time limit passed.
        DeviceError: the worker cannot be started, or the run is ending.
        Exception: what the function raised, with the worker's traceback as a note.
    """
    with open_devices(setting, lock_folder) as pool:
        lock_file, worker = _take_worker(pool)
        try:
            return worker.call(function, arguments, timeout_seconds, report_progress)
        finally:
            _give_back(lock_file, worker)


def _take_worker(pool: DevicePool) -> tuple[Path, WorkerProcess]:
    """A worker that is idle, or a new one on a device that no one has leased; waits for either.

    First come, first served: calls run in the order in which they were made, so those on one model follow each other.
    """
    ticket = object()
    with _changed:
        pool.waiting.append(ticket)
        try:
            return _wait_for_worker(pool, ticket)
        finally:
            pool.waiting.remove(ticket)
            _changed.notify_all()


def _wait_for_worker(pool: DevicePool, ticket: object) -> tuple[Path, WorkerProcess]:
    has_said_so = False
    while True:
        if pool.is_abandoned:
            raise DeviceError("no device was taken, because the run is ending")
        if pool.waiting[0] is ticket:
            if found := _idle_worker(pool) or _new_worker(pool):
                _busy.add(found[0])
                return found
            # Waiting for calls of this process is the normal course of a step; waiting for another run is news.
            held_elsewhere = [
                name for name, path in zip(pool.devices, pool.lock_files, strict=True) if path not in _workers
            ]
            if held_elsewhere and not has_said_so:
                has_said_so = True
                logger.info("waiting for %s, in use by another run on this machine", ", ".join(held_elsewhere))
        # Other runs on this host do not notify us, so look again now and then.
        _changed.wait(_POLL_SECONDS)


def _idle_worker(pool: DevicePool) -> tuple[Path, WorkerProcess] | None:
    for lock_file in pool.lock_files:
        worker = _workers.get(lock_file)
        if worker is None or lock_file in _busy:
            continue
        if worker.is_alive:
            return lock_file, worker
        logger.warning("%s: its idle worker process is gone; a fresh one will be started", worker.device)
        _workers.pop(lock_file).kill()
    return None


def _new_worker(pool: DevicePool) -> tuple[Path, WorkerProcess] | None:
    for device, lock_file in zip(pool.devices, pool.lock_files, strict=True):
        if lock_file in _workers or (lease_fd := take_lease(lock_file)) is None:
            continue
        try:
            _workers[lock_file] = WorkerProcess(device, lease_fd)
        finally:
            os.close(lease_fd)  # the worker has its own duplicate, and its death alone frees the lock
        return lock_file, _workers[lock_file]
    return None


def _give_back(lock_file: Path, worker: WorkerProcess) -> None:
    with _changed:
        _busy.discard(lock_file)
        if not worker.is_alive:
            _workers.pop(lock_file, None)
        _changed.notify_all()


def _join(devices: tuple[str, ...], lock_folder: Path) -> DevicePool:
    lock_files = tuple(lock_file_of(device, lock_folder) for device in devices)
    with _changed:
        pool = _pools.setdefault(lock_files, DevicePool(devices, lock_files))
        pool.users += 1
    return pool


def _leave(pool: DevicePool) -> None:
    with _changed:
        pool.users -= 1
        if pool.users:
            return
        del _pools[pool.lock_files]
        still_used = {lock_file for other in _pools.values() for lock_file in other.lock_files}
        unused = [_workers.pop(path) for path in pool.lock_files if path in _workers and path not in still_used]
    for worker in unused:
        worker.end()


def _abandon(pool: DevicePool) -> None:
    with _changed:
        pool.is_abandoned = True
        for lock_file in pool.lock_files:
            if lock_file in _busy and lock_file in _workers:
                _workers[lock_file].abandon()
        _changed.notify_all()


def _numbered(kind: str, n: int) -> tuple[str, ...]:
    return tuple(f"{kind}:{index}" for index in range(n))


def _count_gpus() -> int:
    """CUDA devices that torch can use. Without a driver there are none, and torch need not be imported (1.3 s)."""
    if not _has_gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_gpu_driver() -> bool:
    if Path("/dev/kfd").exists():  # AMD
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
