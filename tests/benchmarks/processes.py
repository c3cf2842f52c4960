"""What the benchmarks share: the machine in words, a process's peak memory, programs that answer in JSON."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks import torch_when_used as torch

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def describe_machine() -> str:
    """Processor with its generation and width, cores, how fast Python is on it at the moment, and versions."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {key.strip(): value.strip() for key, _, value in lines}
    # Clouds call several generations by one name.
    generation = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return (
        f"{found.get('model name', platform.machine())}{generation}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{os.cpu_count()} cores, {_python_speed():.0f} million additions a second in Python "
        f"{platform.python_version()}, torch {version('torch')}"
    )


def _python_speed() -> float:
    """Millions of turns of an empty loop with an addition: neighbours on a shared machine halve it."""
    started, total = time.perf_counter(), 0
    for number in range(5_000_000):
        total += number
    return 5 / (time.perf_counter() - started)


def own_peak() -> int:
    """The most memory this process held, in KiB; what `getrusage` says may be that of the process it was made by."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def run_module(name: str, *arguments: str, environment: Mapping[str, str] = {}) -> Any:
    """Run a module of this checkout in a process of its own; the JSON that it prints."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return _run([sys.executable, "-m", name, *arguments], {"PYTHONPATH": paths, **environment})


def run_reference(oracles: Path, environment: str, script: str, *arguments: str) -> Any:
    """Run a script of `reference/` in one of the environments below `oracles`; the JSON that it prints."""
    python = oracles.absolute() / environment / "bin" / "python"
    path = Path(__file__).with_name("reference") / script
    return _run([str(python), str(path), *arguments], {"HF_HUB_OFFLINE": "1", **ONE_THREAD})


def _run(command: Sequence[str], changes: Mapping[str, str]) -> Any:
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **changes})
    if found.returncode:
        sys.stderr.write(found.stderr)
        found.check_returncode()
    return json.loads(found.stdout)
