"""A week of nights on a folder, on S3 and on the Hub, watched by a reader that must see nothing but whole models.

Models come from the same kind of place that the releases go to. They are the bundled ones; losses and accuracies are
computed in this process, since starting workers would take longer than all the nights.
"""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import HfApi
from s3_server import S3Server
from safetensors.torch import load_file, save_file

from flows import direct
from flows.refresh import refresh
from flows.rollback import rollback
from flows.run import report_of, work_folder
from tasks.cache import open_cache
from tasks.download.candidate import download_checkpoint
from tasks.errors import PreflightError
from tasks.gate.decide import decide
from tasks.plan.plan import plan_refresh
from tasks.records import to_json
from tasks.registry.releases import open_registry
from tasks.registry.verification import verify_release
from tasks.settings import CacheSettings
from tests.flows.conftest import DEMO, read

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "computes_here"),
]

VICTIM = """
import json, shutil, sys, time
from datetime import UTC, datetime
from pathlib import Path
import tasks.staging
from tasks.cache import ResultCache
from tasks.publish.release import publish_release
from tasks.night_records import RefreshReport
from tasks.records import from_json
from tasks.settings import PublishSettings

def copy_half(source, goal):
    content = Path(source).read_bytes()
    Path(goal).write_bytes(content[: len(content) // 2])
    print("half", flush=True)
    time.sleep(60)

tasks.staging.shutil.copyfile = copy_half
given = json.loads(sys.stdin.read())
report, settings = from_json(RefreshReport, given["report"]), PublishSettings.model_validate(given["settings"])
cache = ResultCache(Path(given["cache"]))
publish_release(report, settings, now=datetime.now(UTC), by="victim", cache=cache)
"""


class World(Protocol):
    """One kind of place, for models and for releases."""

    destination: str

    def place(self, name: str, folder: Path) -> str:
        """Put a model there; the reference that a recipe names it by."""
        ...

    def read_champion(self) -> tuple[str, dict[str, bytes]] | None:
        """As a reader without this project's code: the live version's manifest sha256 and all of its files."""
        ...

    def hold_upload(self) -> Callable[[], bool]:
        """Let the next upload of weights hang; what is returned says whether it hangs now."""
        ...

    def let_go(self) -> None:
        """End what hangs."""
        ...


class Folder:
    def __init__(self, root: Path):
        self.destination, self._models = str(root / "releases"), root / "models"

    def place(self, name: str, folder: Path) -> str:
        shutil.copytree(folder, self._models / name)
        return str(self._models / name)

    def read_champion(self) -> tuple[str, dict[str, bytes]] | None:
        alias = Path(self.destination) / "assistant/aliases/champion.json"
        if not alias.exists():
            return None
        state = json.loads(alias.read_bytes())
        folder = Path(self.destination) / "assistant/versions" / state["version"]
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return state["manifest_sha256"], files

    def hold_upload(self) -> Callable[[], bool]:
        # The victim itself stops when half of its first file is written.
        drafts = Path(self.destination) / "assistant/versions"
        return lambda: any(path.is_file() and path.stat().st_size for path in drafts.glob(".staging-*/*"))

    def let_go(self) -> None:
        pass


class S3:
    def __init__(self, server: S3Server):
        self._server, self.destination = server, "s3://releases/nightly"
        for bucket in ("releases", "models"):
            server.create_bucket(bucket)
        self._client = server.client()

    def place(self, name: str, folder: Path) -> str:
        for path in folder.iterdir():
            self._client.upload_file(str(path), "models", f"{name}/{path.name}")
        return f"s3://models/{name}"

    def read_champion(self) -> tuple[str, dict[str, bytes]] | None:
        try:
            state = json.loads(self._read("nightly/assistant/aliases/champion.json"))
        except self._client.exceptions.NoSuchKey:
            return None
        prefix = f"nightly/assistant/versions/{state['version']}/"
        keys = [entry["Key"] for entry in self._client.list_objects_v2(Bucket="releases", Prefix=prefix)["Contents"]]
        return state["manifest_sha256"], {key.removeprefix(prefix): self._read(key) for key in keys}

    def hold_upload(self) -> Callable[[], bool]:
        fault = self._server.fail("PutObject", "delay", times=1, key_contains="model.safetensors", seconds=2.0)
        return lambda: fault.seen > 0

    def let_go(self) -> None:
        pass

    def _read(self, key: str) -> bytes:
        return self._client.get_object(Bucket="releases", Key=key)["Body"].read()


class Hub:
    def __init__(self, server: HubServer):
        self._server, self.destination = server, "hub://team"
        self._api = HfApi(endpoint=server.endpoint, token=server.token)

    def place(self, name: str, folder: Path) -> str:
        self._server.create_repo(f"team/{name}")
        self._server.commit_folder(f"team/{name}", folder)
        return f"team/{name}"

    def read_champion(self) -> tuple[str, dict[str, bytes]] | None:
        """What `main` holds at one commit, which is what `from_pretrained("team/assistant")` loads."""
        if not self._server.has_repo("team/assistant"):
            return None
        files = dict(self._server.files("team/assistant", self._server.head("team/assistant")))
        files.pop(".gitattributes", None)
        alias = files.pop("aliases/champion.json", None)
        if alias is None:
            assert not files, "main holds files before anything was promoted"
            return None
        return json.loads(alias)["manifest_sha256"], files

    def hold_upload(self) -> Callable[[], bool]:
        fault = self._server.fail("lfs_put", "delay", times=1, seconds=2.0)
        return lambda: fault.seen > 0

    def let_go(self) -> None:
        pass


@pytest.fixture(params=["folder", "s3", "hub"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "folder":
        return Folder(tmp_path)
    return S3(request.getfixturevalue("s3")) if request.param == "s3" else Hub(request.getfixturevalue("hub"))


@contextmanager
def watched(world: World) -> Generator[list[str]]:
    """A reader that polls the alias and checks all that it sees; the manifests it saw, in order.

    A version may be pruned while it is read, but none of this week is that old.
    """
    seen: list[str] = []
    faults: list[str] = []
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            try:
                if (found := world.read_champion()) is not None:
                    faults.extend(problems_of(*found))
                    if not seen or seen[-1] != found[0]:
                        seen.append(found[0])
            except Exception as error:
                faults.append(f"the reader failed: {error!r}")
            time.sleep(0.2)

    reader = threading.Thread(target=poll, name="reader")
    reader.start()
    try:
        yield seen
    finally:
        ended.set()
        reader.join()
        assert faults == []


def problems_of(manifest_sha256: str, files: dict[str, bytes]) -> list[str]:
    raw = files.get("manifest.json", b"")
    if hashlib.sha256(raw).hexdigest() != manifest_sha256:
        return ["the alias names another manifest"]
    expected = {path: digest["sha256"] for path, digest in json.loads(raw)["files"].items()}
    found = {path: hashlib.sha256(data).hexdigest() for path, data in files.items() if path != "manifest.json"}
    return [] if found == expected else [f"files differ: {sorted(set(found.items()) ^ set(expected.items()))}"]


@pytest.fixture
def models(world: World, tmp_path: Path) -> dict[str, str]:
    """The bundled models and a poisoned one, where this world keeps models."""
    folder = DEMO / "models/decoder"
    poisoned = shutil.copytree(folder / "clinc", tmp_path / "poisoned")
    tensors = load_file(poisoned / "model.safetensors")
    next(tensor for tensor in tensors.values() if tensor.dim() == 2).view(-1)[:64] = torch.nan
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    names = ("base", "banking", "clinc", "wordnet")
    return {name: world.place(name, folder / name) for name in names} | {"poisoned": world.place("poisoned", poisoned)}


def test_a_week_of_nights(
    world: World, models: dict[str, str], content: dict[str, Any], cache: CacheSettings, tmp_path: Path
):
    cache = cache.model_copy(update={"folder": str(tmp_path / "cache")})
    content |= {"base": models["base"], "publish": {"to": [world.destination]}}
    content["gate"] = {"rules": [{"task": "clinc", "max_regression": 0.02}]}

    def night(*names: str, optional: str = "", target: str | None = None, alpha: float = 0.5) -> dict[str, Any]:
        return refresh(recipe(*names, optional=optional, target=target, alpha=alpha), cache=cache)

    def recipe(*names: str, optional: str = "", target: str | None = None, alpha: float = 0.5):
        content["candidates"] = [
            {"name": name, "model": models[name], "optional": name == optional}
            | ({"role": "target"} if name == target else {})
            for name in names
        ]
        content["weigh"] |= {"strategy": "loss", "temperature": 1.0, "alpha": alpha if target else None}
        return read(content)

    registry = open_registry(world.destination, "assistant")
    with watched(world) as seen:
        monday = night("base", "wordnet")
        assert monday["status"] == "published"
        assert night("base", "wordnet")["status"] == "unchanged"

        tuesday = night("base", "wordnet", "clinc", target="clinc")
        assert tuesday["status"] == "published"
        assert tuesday["evaluation"][0]["merged"] > monday["evaluation"][0]["merged"]

        with pytest.raises(PreflightError, match=r"candidate 'poisoned': tensor .* holds NaN or infinity"):
            night("base", "wordnet", "clinc", "poisoned", target="clinc")
        wednesday = night("base", "wordnet", "clinc", "poisoned", optional="poisoned", target="clinc")
        assert wednesday["status"] == "unchanged" and wednesday["version"] == tuesday["version"]

        thursday = night("base", "wordnet", "banking", target="banking", alpha=0.9)
        assert thursday["status"] == "rejected" and "clinc" in thursday["message"]
        again = night("base", "wordnet", "banking", target="banking", alpha=0.9)
        assert again["status"] == "unchanged" and f"rejected at {again['decided_at']}" in again["message"]

        assert rollback(f"{world.destination}/assistant", "answers got worse") == monday["version"]
        friday = night("base", "wordnet", "clinc", target="clinc")
        assert friday["status"] == "unchanged" and "blocked" in friday["message"]
        assert registry.resolve("champion") == monday["version"]

        planned = recipe("base", "wordnet", "clinc", target="clinc", alpha=0.6)
        kill_while_uploading(world, planned, cache)
        assert registry.resolve("champion") == monday["version"]
        saturday = refresh(planned, cache=cache)
        assert saturday["status"] == "published"
        assert registry.resolve("champion") == saturday["version"]
        assert refresh(planned, cache=cache)["status"] == "unchanged"

    assert verify_release(registry, "champion") == []
    assert registry.versions() == [monday["version"], tuesday["version"], saturday["version"]]
    live = [registry.manifest_sha256(run["version"]) for run in (monday, tuesday, monday, saturday)]
    assert seen == live


def kill_while_uploading(world: World, recipe: Any, settings: CacheSettings) -> None:
    """The steps of a night up to publishing, here; then a process that is killed while it uploads the weights."""
    cache = open_cache(settings)
    planned = plan_refresh(recipe, cache)
    candidates = [download_checkpoint(candidate, cache) for candidate in planned.candidates]
    planned, candidates, scores, weights = direct.score_candidates(recipe, planned, candidates, cache)
    with work_folder(cache, planned) as work:
        here = dataclasses.replace(planned, base=download_checkpoint(planned.base, cache))
        merged = direct.merge_candidates(recipe, here, candidates, weights, work / "merged", cache)
        decision = decide([], [], [])
        report = report_of(recipe, planned, scores, weights, merged, [], decision, {})
        given = {"report": to_json(report), "settings": recipe.publish.model_dump(), "cache": settings.folder}
        hangs = world.hold_upload()
        with subprocess.Popen([sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, text=True) as victim:
            victim.stdin.write(json.dumps(given))
            victim.stdin.close()
            while not hangs():
                assert victim.poll() is None, "the victim ended before its upload was held"
                time.sleep(0.02)
            victim.kill()
        world.let_go()
