"""A program of the team's: what comes back of it, and that nothing of it outlives its run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.evaluate.program import Output, run_program

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def run(script: str, timeout_seconds: float = 30, max_bytes: int = 100_000) -> Output:
    return run_program(["/bin/sh", "-c", script], ENVIRONMENT, timeout_seconds, max_bytes)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for is a zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_both_outputs_come_back_apart():
    found = run("echo out; seq 1 30 >&2")
    assert found.text == b"out\n"
    # Of 30 lines the last 20.
    assert found.last_words.startswith("\n    11\n") and found.last_words.endswith("\n    30")


def test_it_runs_in_a_fresh_folder_that_is_removed_with_the_environment_that_it_is_given():
    folder = run("pwd; touch left; ls").text.decode().split()
    assert folder[1:] == ["left"]
    assert not Path(folder[0]).exists()
    names = {line.split("=")[0] for line in run("env").text.decode().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH"}


def test_arguments_reach_it_as_they_are_and_nothing_waits_for_input():
    found = run_program(["/bin/sh", "-c", 'printf %s "$1"; cat', "sh", "$HOME; touch x"], ENVIRONMENT, 30)
    assert found.text == b"$HOME; touch x"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo why >&2; exit 3", r"^/bin/sh failed with exit code 3\n    why$"),
        ("kill -9 $$", "^/bin/sh was ended by SIGKILL$"),
        ("exec /no/such/program", "failed with exit code 127"),
    ],
)
def test_a_failure_says_what_failed_with_its_last_words(script: str, problem: str):
    with pytest.raises(InputError, match=problem):
        run(script)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"/no/such failed with exit code 1\n    /no/such: No such file"):
        run_program(["/no/such"], ENVIRONMENT, 30)


def test_arguments_that_the_system_does_not_take_are_said():
    # Linux takes 128 KiB in one argument.
    with pytest.raises(InputError, match=r"echo could not be started: .*Argument list too long"):
        run_program(["echo", "x" * 200_000], ENVIRONMENT, 30)


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_a_program_that_writes_without_end_is_killed(stream: str):
    with pytest.raises(InputError, match="wrote more than 100000 bytes and was killed"):
        run(f"yes {stream}")


def test_a_program_that_takes_too_long_is_killed_with_the_processes_it_started(tmp_path: Path):
    # The grandchild holds the outputs open, and the child waits for it.
    script = f"echo begun >&2; sh -c 'sleep 60 & echo $! > {tmp_path / 'pid'}; wait' & wait"
    with pytest.raises(InputError, match=r"was killed after 1 s, the limit in the task's timeout_seconds\n    begun"):
        run(script, timeout_seconds=1.0)
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_children_that_it_leaves_behind_are_killed(tmp_path: Path):
    assert run(f"sleep 60 & echo $! > {tmp_path / 'pid'}; echo done").text == b"done\n"
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_it_ends_with_the_process_that_started_it_even_if_that_is_killed(tmp_path: Path):
    pid_file = tmp_path / "pid"
    code = (
        "from tasks.evaluate.program import run_program; "
        f"run_program(['/bin/sh', '-c', 'echo $$ > {pid_file}; sleep 60'], {ENVIRONMENT}, 60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_until(lambda: pid_file.is_file() and bool(pid_file.read_text().strip()))
    pid = int(pid_file.read_text())
    assert is_alive(pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not is_alive(pid))
