"""Real worker processes, without torch: they start in about 0.1 s."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import functions_on_worker as on_worker
import pytest

import tasks.devices
from tasks.devices import call_on_device, open_devices
from tasks.errors import DeviceError, WorkerDiedError, WorkerTimeoutError, is_transient
from tasks.workers.leases import lock_files_of, take_lease, usable_lock_folder
from tasks.workers.main import report_progress
from tasks.workers.process import device_in_worker, worker_environment

HELPERS = Path(__file__).parent / "helpers"
CPU = ["cpu:0"]
PAIR = ["cpu:0+cpu:1"]


@pytest.fixture
def locks(tmp_path):
    """A folder of lock files of its own, so that no other run on this machine takes part."""
    yield tmp_path / "locks"
    assert not tasks.devices._workers and not tasks.devices._pools, "a worker or pool was left over"


def is_free(lock_file):
    lease = take_lease(lock_file)
    if lease is not None:
        os.close(lease)
    return lease is not None


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


HOLDER = """
from pathlib import Path
import functions_on_worker as on_worker
from tasks.devices import call_on_device
print(call_on_device(["cpu:0"], on_worker.hold, {started!r}, {end!r}, lock_folder=Path({locks!r})))
"""


def start_python(program):
    path = json.dumps([str(HELPERS), str(Path(__file__).parents[1])])
    source = f"import sys; sys.path[:0] = {path}\n{program}"
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)


def run_python(*arguments, cwd):
    path = os.pathsep.join([str(HELPERS), str(Path(__file__).parents[1])])
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )


def is_gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


# What a worker sees


def test_a_gpu_worker_sees_its_gpu_alone_within_what_the_run_sees(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert lock_files_of("cuda:1", tmp_path)[0].name == "cuda-1.lock"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert worker_environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "6"
    assert lock_files_of("cuda:1", tmp_path)[0].name == "cuda-6.lock"


def test_a_worker_of_several_gpus_sees_exactly_those_in_their_order(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_environment("cuda:2+cuda:0")["CUDA_VISIBLE_DEVICES"] == "2,0"
    assert device_in_worker("cuda:2+cuda:0") == "cuda:0+cuda:1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,GPU-c")
    assert worker_environment("cuda:1+cuda:2")["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-c"
    assert [file.name for file in lock_files_of("cuda:1+cuda:2", tmp_path)] == ["cuda-GPU-b.lock", "cuda-GPU-c.lock"]


def test_a_worker_of_several_shares_of_the_processor_has_as_many_threads_and_holds_both_locks(locks):
    with open_devices(PAIR, locks) as pool:
        found = call_on_device(PAIR, on_worker.variables, "OMP_NUM_THREADS", "MKL_NUM_THREADS", lock_folder=locks)
        assert found == ["2", "2"]
        assert call_on_device(PAIR, on_worker.echo, lock_folder=locks) == ("cpu",)
        assert len(tasks.devices._workers) == 1
        assert [is_free(lock_file) for lock_file in pool.places[0]] == [False, False]
    assert [is_free(lock_file) for lock_file in pool.places[0]] == [True, True]


def test_torch_in_a_worker_of_two_shares_computes_with_two_threads(locks):
    assert call_on_device(PAIR, on_worker.torch_threads, lock_folder=locks) == 2


def test_a_worker_sees_no_credentials(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "COCKTAIL_S3_KMS_KEY_ID", "PREFECT_API_KEY", "PLAIN"):
        monkeypatch.setenv(name, "value")
    environment = worker_environment("cpu:0")
    assert "PLAIN" in environment
    assert not [name for name in environment if name.startswith(("AWS_", "HF_TOKEN", "COCKTAIL_S3_", "PREFECT_API_"))]


def test_a_cpu_worker_computes_with_one_thread_and_sees_no_gpu(locks):
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE"]
    found = call_on_device(CPU, on_worker.variables, *names, lock_folder=locks)
    assert found == ["", "1", "false", "1"]


def test_the_function_gets_torchs_name_of_the_device_and_the_arguments(locks):
    assert call_on_device(CPU, on_worker.echo, 1, Path("a"), lock_folder=locks) == ("cpu", 1, Path("a"))


def test_a_worker_imports_nothing_heavy_by_itself(locks):
    assert call_on_device(CPU, on_worker.is_imported, "torch", lock_folder=locks) is False


def test_a_worker_does_not_run_the_parents_script_and_works_from_any_folder(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import functions_on_worker as on_worker\n"
        "from tasks.devices import call_on_device\n"
        "print(call_on_device(['cpu:0'], on_worker.echo, 7, lock_folder=Path('locks')))\n"
        "call_on_device(['cpu:0'], on_worker.print_text, lock_folder=Path('locks'))\n"
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("raise ImportError('another package of that name')")
    done = run_python("-P", script, cwd=tmp_path)
    # Once: the worker has not imported the script. And what it prints goes to stderr.
    assert (done.stdout, done.stderr) == ("('cpu', 7)\n", "printed in the worker\n")


# Sharing


def test_workers_are_kept_while_a_pool_is_open_and_end_with_it(locks):
    with open_devices(CPU, locks) as pool:
        first = call_on_device(CPU, on_worker.process_id, lock_folder=locks)
        with open_devices(CPU, locks) as inner:
            assert inner is pool
        assert call_on_device(CPU, on_worker.process_id, lock_folder=locks) == first
        assert not is_free(pool.places[0][0])
    assert is_free(pool.places[0][0])


def test_an_idle_worker_is_taken_before_a_new_one_is_started(locks):
    with open_devices(["cpu:0", "cpu:1"], locks):
        ids = {call_on_device(["cpu:0", "cpu:1"], on_worker.process_id, lock_folder=locks) for _ in range(3)}
    assert len(ids) == 1


def test_pools_that_share_a_device_share_its_worker(locks):
    # The inner call would wait for ever if the outer pool's idle worker kept cpu:0 from it.
    with open_devices(["cpu:0", "cpu:1"], locks):
        outer = call_on_device(["cpu:0", "cpu:1"], on_worker.process_id, lock_folder=locks)
        assert call_on_device(CPU, on_worker.process_id, lock_folder=locks) == outer


def test_two_devices_compute_at_the_same_time(locks, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    with open_devices(["cpu:0", "cpu:1"], locks), ThreadPoolExecutor(2) as threads:
        calls = [
            threads.submit(call_on_device, ["cpu:0", "cpu:1"], on_worker.meet, *files, lock_folder=locks)
            for files in ((here, there), (there, here))
        ]
        assert [call.result() for call in calls] == [True, True]


def test_calls_wait_for_the_device_and_run_in_the_order_in_which_they_were_made(locks, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    started, end = tmp_path / "started", tmp_path / "end"
    order = tmp_path / "order"

    def note(line: str) -> None:
        # Its limit is shorter than the wait: waiting does not count.
        call_on_device(CPU, on_worker.note, order, line, timeout_seconds=2.0, lock_folder=locks)

    with open_devices(CPU, locks) as pool, ThreadPoolExecutor(4) as threads:
        first = threads.submit(call_on_device, CPU, on_worker.hold, started, end, lock_folder=locks)
        wait_until(started.exists)
        others: list[Future[None]] = []
        for line in ("one", "two", "three"):
            others.append(threads.submit(note, line))
            wait_until(lambda: len(pool.waiting) == len(others))
        time.sleep(2.1)
        assert not order.exists()
        end.touch()
        assert first.result() == "cpu"
        assert [other.result() for other in others] == [None] * 3
    assert order.read_text(encoding="utf-8").split() == ["one", "two", "three"]
    # Taking turns within a run is no news.
    assert "in use by another run" not in caplog.text


def test_two_processes_share_one_device_and_the_one_that_waits_says_so_once(locks, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    started, end = tmp_path / "started", tmp_path / "end"
    other = start_python(HOLDER.format(locks=str(locks), started=str(started), end=str(end)))
    wait_until(started.exists)
    with ThreadPoolExecutor(1) as threads:
        mine = threads.submit(call_on_device, CPU, on_worker.process_id, lock_folder=locks)
        wait_until(lambda: "waiting for cpu:0, in use by another run on this machine" in caplog.text)
        time.sleep(0.5)
        assert not mine.done()
        end.touch()
        assert mine.result() != int(started.read_text())
    assert other.communicate(timeout=120)[0] == "cpu\n"
    assert caplog.text.count("in use by another run") == 1


def test_a_device_of_several_waits_for_all_of_its_parts_and_holds_none_meanwhile(locks, tmp_path):
    started, end = tmp_path / "started", tmp_path / "end"
    other = start_python(HOLDER.format(locks=str(locks), started=str(started), end=str(end)))  # on cpu:0
    wait_until(started.exists)
    with ThreadPoolExecutor(1) as threads:
        mine = threads.submit(call_on_device, PAIR, on_worker.echo, lock_folder=locks)
        # cpu:1 stays free for others, who could not go on otherwise.
        assert call_on_device(["cpu:1"], on_worker.echo, lock_folder=locks) == ("cpu",)
        assert not mine.done()
        end.touch()
        assert mine.result() == ("cpu",)
    assert other.communicate(timeout=120)[0] == "cpu\n"


def test_two_runs_that_want_the_same_two_parts_in_different_order_take_turns(locks, tmp_path):
    started, end = tmp_path / "started", tmp_path / "end"
    program = HOLDER.replace('["cpu:0"]', '["cpu:1+cpu:0"]')
    other = start_python(program.format(locks=str(locks), started=str(started), end=str(end)))
    wait_until(started.exists)
    with ThreadPoolExecutor(1) as threads:
        mine = threads.submit(call_on_device, PAIR, on_worker.echo, lock_folder=locks)
        time.sleep(0.5)
        assert not mine.done()
        end.touch()
        assert mine.result() == ("cpu",)
    assert other.communicate(timeout=120)[0] == "cpu\n"


def test_an_idle_worker_of_this_run_gives_way_to_one_that_needs_its_device_as_a_part(locks):
    with open_devices(CPU, locks), open_devices(PAIR, locks):
        first = call_on_device(CPU, on_worker.process_id, lock_folder=locks)
        assert call_on_device(PAIR, on_worker.process_id, lock_folder=locks) != first
        assert is_gone(first)
        # And back.
        assert call_on_device(CPU, on_worker.echo, lock_folder=locks) == ("cpu",)


def test_a_busy_worker_of_this_run_is_waited_for_by_one_that_needs_its_device_as_a_part(locks, tmp_path):
    started, end = tmp_path / "started", tmp_path / "end"
    with open_devices(CPU, locks), ThreadPoolExecutor(2) as threads:
        held = threads.submit(call_on_device, CPU, on_worker.hold, started, end, lock_folder=locks)
        wait_until(started.exists)
        pair = threads.submit(call_on_device, PAIR, on_worker.echo, lock_folder=locks)
        time.sleep(0.5)
        assert not pair.done()
        end.touch()
        assert (held.result(), pair.result()) == ("cpu", ("cpu",))


def test_a_lease_is_one_processs_alone(tmp_path):
    lease = take_lease(tmp_path / "a.lock")
    assert lease is not None
    assert not is_free(tmp_path / "a.lock")
    fcntl.flock(lease, fcntl.LOCK_UN)
    assert is_free(tmp_path / "a.lock")
    os.close(lease)


# Failure


def test_a_killed_worker_costs_one_call_and_frees_its_device(locks):
    with open_devices(CPU, locks):
        with pytest.raises(WorkerDiedError, match=r"cpu:0: .* was killed by SIGKILL .*memory ran out") as caught:
            call_on_device(CPU, on_worker.die, signal.SIGKILL, lock_folder=locks)
        assert is_transient(caught.value)
        assert call_on_device(CPU, on_worker.echo, lock_folder=locks) == ("cpu",)


@pytest.mark.parametrize(
    ("function", "argument", "text"),
    [
        (on_worker.die, signal.SIGSEGV, "was killed by SIGSEGV during a call: a fault in native code"),
        (on_worker.leave, 3, "ended with exit code 3 during a call: see its last words on stderr"),
    ],
)
def test_the_way_a_worker_ended_is_told(locks, function, argument, text):
    with pytest.raises(WorkerDiedError, match=text):
        call_on_device(CPU, function, argument, lock_folder=locks)


def test_a_worker_that_died_while_idle_is_replaced(locks):
    with open_devices(CPU, locks):
        first = call_on_device(CPU, on_worker.process_id, lock_folder=locks)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not next(iter(tasks.devices._workers.values())).is_alive)
        assert call_on_device(CPU, on_worker.process_id, lock_folder=locks) != first


def test_a_call_over_its_time_limit_is_killed_with_all_that_it_started(locks, tmp_path):
    child = tmp_path / "child"
    with open_devices(CPU, locks):
        call_on_device(CPU, on_worker.echo, lock_folder=locks)  # so that the limit covers no start
        with pytest.raises(WorkerTimeoutError, match=r"cpu:0: the call took longer than its limit of 1 s") as caught:
            call_on_device(CPU, on_worker.start_child_and_sleep, child, timeout_seconds=1.0, lock_folder=locks)
    assert is_transient(caught.value)
    wait_until(lambda: is_gone(int(child.read_text())))
    assert is_free(lock_files_of("cpu:0", locks)[0])


def test_an_interrupt_of_the_waiting_parent_kills_the_worker(locks):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_on_device(CPU, on_worker.log_and_report, report_progress=interrupt, lock_folder=locks)
    assert is_free(lock_files_of("cpu:0", locks)[0])


def test_the_end_of_a_run_ends_the_calls_of_its_other_threads_for_good(locks, tmp_path):
    started = tmp_path / "started"
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(KeyboardInterrupt), open_devices(CPU, locks):
            running = threads.submit(call_on_device, CPU, on_worker.hold, started, tmp_path / "x", lock_folder=locks)
            wait_until(started.exists)
            waiting = threads.submit(call_on_device, CPU, on_worker.echo, lock_folder=locks)
            wait_until(lambda: next(iter(tasks.devices._pools.values())).users == 3)
            raise KeyboardInterrupt
        for call, text in ((running, "cpu:0: its worker process was ended"), (waiting, "no device was taken")):
            error = call.exception(timeout=120)
            assert isinstance(error, DeviceError) and text in str(error)
            assert not is_transient(error), "Prefect would start it again"


def test_a_worker_ends_with_a_parent_that_is_killed(locks, tmp_path):
    started = tmp_path / "started"
    parent = start_python(HOLDER.format(locks=str(locks), started=str(started), end=str(tmp_path / "never")))
    wait_until(started.exists)
    assert not is_free(lock_files_of("cpu:0", locks)[0])
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=120)
    wait_until(lambda: is_free(lock_files_of("cpu:0", locks)[0]))
    assert call_on_device(CPU, on_worker.echo, lock_folder=locks) == ("cpu",)


def test_an_error_comes_back_as_it_is_with_the_workers_traceback(locks):
    with open_devices(CPU, locks):
        first = call_on_device(CPU, on_worker.process_id, lock_folder=locks)
        with pytest.raises(ValueError, match="no such row") as caught:
            call_on_device(CPU, on_worker.fail, "no such row", lock_folder=locks)
        assert str(caught.value) == "no such row"
        assert "In the worker process of cpu:0" in caught.value.__notes__[0]
        assert "functions_on_worker.py" in caught.value.__notes__[0]
        # An ordinary error costs no worker.
        assert call_on_device(CPU, on_worker.process_id, lock_folder=locks) == first


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (on_worker.fail_unpicklable, "Unpicklable: cannot be rebuilt from one argument"),
        (on_worker.run_out_of_memory, r"out of memory: CUDA out of memory.*lower score.max_length"),
        # CUDA survives this one, unlike its other errors.
        (on_worker.run_out_of_memory_in_a_library, r"out of memory: CUDA error: CUBLAS.*lower score.max_length"),
        (on_worker.give_lambda, "pickle"),
    ],
)
def test_what_cannot_come_back_as_it_is_comes_as_its_text(locks, function, text):
    with pytest.raises(Exception, match=text) as caught:
        call_on_device(CPU, function, lock_folder=locks)
    assert not is_transient(caught.value)


def test_a_cuda_error_costs_the_worker_since_its_device_is_lost(locks):
    with pytest.raises(WorkerDiedError, match=r"exit code 70 .*a CUDA error that leaves the device unusable"):
        call_on_device(CPU, on_worker.lose_device, lock_folder=locks)


def test_only_functions_that_a_worker_can_import_are_taken(locks):
    with pytest.raises(ValueError, match="must be a module's own function"):
        call_on_device(CPU, lambda device: device, lock_folder=locks)


def test_a_worker_that_cannot_be_started_frees_its_device(locks, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DeviceError, match="cpu:0: its worker process cannot be started"):
        call_on_device(CPU, on_worker.echo, lock_folder=locks)
    assert is_free(lock_files_of("cpu:0", locks)[0])


def test_a_lock_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="cannot be made"):
        usable_lock_folder(tmp_path / "file")
    monkeypatch.setattr(os, "getuid", lambda: -1)
    with pytest.raises(DeviceError, match="read-only or belongs to another user"):
        usable_lock_folder(tmp_path)


# What a worker tells


def test_logs_and_progress_arrive_in_the_calling_thread(locks, caplog):
    caplog.set_level(logging.INFO)
    reports = []
    call_on_device(
        CPU,
        on_worker.log_and_report,
        report_progress=lambda done, total: reports.append((done, total, threading.get_ident())),
        lock_folder=locks,
    )
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("tasks.score", "INFO", "half of 10")]  # the detail is below this run's level
    assert caplog.records[0].process != os.getpid()
    assert reports == [(5, 10, threading.get_ident()), (10, 10, threading.get_ident())]


def test_a_report_outside_a_worker_does_nothing():
    report_progress(1, 2)
