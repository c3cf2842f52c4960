"""The team's program after a promotion: what it is told, and that nothing of it outlives its limit."""

import logging
import os
import re
import shlex
import time
from pathlib import Path

import pytest

from tasks.publish.command import Promotion, run_command

PROMOTION = Promotion("demo", "20261120-111111111111", "champion", "s3://models/demo/versions/v", "a" * 64)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for is a zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_the_program_is_told_of_the_release_and_given_no_credentials(tmp_path: Path, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PREFECT_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("COCKTAIL_HOOK", "https://chat.example/hook")
    monkeypatch.setenv("COCKTAIL_NAME", "another")
    assert run_command(shell(f"env > {shlex.quote(str(tmp_path / 'env'))}"), 20, PROMOTION)
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    # The shell itself adds these.
    told = {key: value for key, value in told.items() if key not in {"PWD", "OLDPWD", "SHLVL", "_"}}
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    assert told == kept | {
        "COCKTAIL_NAME": "demo",
        "COCKTAIL_VERSION": "20261120-111111111111",
        "COCKTAIL_ALIAS": "champion",
        "COCKTAIL_URI": "s3://models/demo/versions/v",
        "COCKTAIL_MANIFEST_SHA256": "a" * 64,
        "COCKTAIL_HOOK": "https://chat.example/hook",
    }


def test_arguments_reach_the_program_as_they_are_without_a_shell(tmp_path: Path):
    name = "$HOME; touch x"
    assert run_command(["/bin/sh", "-c", 'printf %s "$1" > "$2"', "sh", name, str(tmp_path / "seen")], 20, PROMOTION)
    assert (tmp_path / "seen").read_text() == name


def test_its_last_lines_are_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    assert run_command(shell("seq 1 30; echo done >&2"), 20, PROMOTION)
    assert "/bin/sh was told of 20261120-111111111111" in caplog.text
    # Of 31 lines the last 20.
    assert "\n    12\n" in caplog.text
    assert "\n    11\n" not in caplog.text
    assert caplog.text.rstrip().endswith("done")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["/no/such/program"], r"could not be started: .*No such file"),
        (shell("echo why; exit 3"), r"failed with exit code 3; 20261120-111111111111 stands and champion points at it"),
        (shell("kill -9 $$"), "was ended by signal 9"),
    ],
)
def test_a_failure_is_a_warning_that_says_what_failed(command: list[str], problem: str, caplog):
    assert not run_command(command, 20, PROMOTION)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"on_promote: {command[0]} ")
    assert re.search(problem, record.message)


def test_a_program_that_takes_too_long_is_killed_with_the_processes_it_started(tmp_path: Path, caplog):
    pid_file = tmp_path / "pid"
    # The grandchild holds the output open, and the child waits for it.
    script = f"echo begun; sh -c 'sleep 250 & echo $! > {pid_file}; wait' & wait"
    started = time.monotonic()
    assert not run_command(shell(script), 1.0, PROMOTION)
    assert time.monotonic() - started < 120
    assert "was killed after 1 s, the limit in publish.on_promote.timeout_seconds" in caplog.text
    assert "\n    begun" in caplog.text
    deadline = time.monotonic() + 120
    while is_alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(int(pid_file.read_text()))


def test_a_child_that_it_leaves_behind_is_not_waited_for(tmp_path: Path):
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    assert run_command(shell(f"sleep 250 & echo $! > {pid_file}"), 30, PROMOTION)
    assert time.monotonic() - started < 120
    os.kill(int(pid_file.read_text()), 9)
