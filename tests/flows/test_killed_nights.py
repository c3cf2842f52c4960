"""A campaign of nights that are killed at many moments: nothing half is ever published, and a plain re-run finishes.

Takes minutes: `make test-long`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.registry.releases import open_registry
from tasks.registry.verification import verify_release
from tests.flows.conftest import read

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

COCKTAIL = str(Path(sys.executable).parent / "cocktail")
N_KILLS = 10


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect")}
    command = [COCKTAIL, "refresh", str(recipe), "--cache", str(folder / "cache"), "--json", "--force"]
    # A session of its own: Prefect's temporary server, which a killed run leaves behind, can be ended with it.
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )


def check_registry(destination: Path) -> bool:
    """Whether something is live; what is live is whole."""
    registry = open_registry(str(destination), "assistant")
    state = registry.read_alias("champion")
    if state is None:
        return False
    assert verify_release(registry, "champion") == []
    return True


def workers() -> list[str]:
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "tasks.workers.main" in line and " -m " in line]


def test_nights_killed_at_any_moment_publish_nothing_half_and_a_re_run_finishes(
    content: dict[str, Any], tmp_path: Path
):
    destination = tmp_path / "releases"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(read(content).model_dump(mode="json", by_alias=True)), encoding="utf-8")
    before = time.monotonic()
    whole = start(recipe, tmp_path)
    assert json.loads(whole.communicate()[0])["status"] == "published"
    duration = time.monotonic() - before
    for kill in range(N_KILLS):
        # Every night begins without results and releases of its own, so that all steps run.
        for name in ("cache", "releases"):
            (tmp_path / name).rename(tmp_path / f"{name}-before-kill-{kill}")
        night = start(recipe, tmp_path)
        time.sleep(duration * (kill + 1) / (N_KILLS + 1))
        os.killpg(night.pid, signal.SIGKILL)
        night.communicate()
        destination.mkdir(exist_ok=True)
        (tmp_path / "cache").mkdir(exist_ok=True)
        check_registry(destination)
        time.sleep(3)
        assert workers() == []
    again = start(recipe, tmp_path)
    assert json.loads(again.communicate()[0])["status"] in ("published", "unchanged")
    assert check_registry(destination)
    assert list(destination.rglob(".staging-*")) == []
    assert list((tmp_path / "cache" / "work").iterdir()) == []
