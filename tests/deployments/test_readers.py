"""The readers in deployments/readers/ load whole, released models and nothing else, while releases land and go back.

Releases are laid out by hand, as the contract says, so that readers are held to the contract and not to our stores.
"""

import hashlib
import importlib
import json
import logging
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import pytest
from botocore.exceptions import ClientError
from hub_server import HubServer
from s3_server import S3Server
from tiny_models import save_decoder, save_encoder
from transformers import LlamaForCausalLM

READERS = Path(__file__).resolve().parents[2] / "deployments" / "readers"

Files = dict[str, bytes]


@pytest.fixture(scope="module", autouse=True)
def readers_on_path() -> Generator[None]:
    """As Python does for a script: its folder is where it imports `reader` from."""
    sys.path.insert(0, str(READERS))
    yield
    sys.path.remove(str(READERS))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Version to the files of a release: four models that differ in every weight."""
    made: dict[str, Files] = {}
    for seed in (1, 2, 3, 4):
        folder = save_decoder(tmp_path_factory.mktemp("model"), seed)
        version = f"2026112{seed}-{str(seed) * 12}"
        made[version] = with_manifest(version, {file.name: file.read_bytes() for file in folder.iterdir()})
    return made


def with_manifest(version: str, files: Files) -> Files:
    digests = {path: {"sha256": sha256(data), "size": len(data)} for path, data in files.items()}
    return files | {"manifest.json": json.dumps({"version": version, "files": digests}).encode()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def alias_file(version: str, files: Files) -> bytes:
    return json.dumps({"version": version, "manifest_sha256": sha256(files["manifest.json"])}).encode()


class Place(Protocol):
    """Where releases land in a test."""

    def put(self, version: str, files: Files) -> None:
        """Lay down a version, the manifest last."""

    def point(self, version: str, files: Files, alias: str = "champion") -> None:
        """Move the alias in one step."""

    def follow(self, every: float | None, alias: str = "champion") -> Iterator[tuple[str, Any]]:
        """The reader of this place."""

    def damage(self, version: str, path: str) -> None:
        """Let readers get a file with one byte wrong."""

    def argv(self) -> list[str]:
        """The reader's command line."""


class Folder:
    def __init__(self, root: Path):
        self.root = root / "assistant"
        (self.root / "aliases").mkdir(parents=True)

    def put(self, version: str, files: Files) -> None:
        folder = self.root / "versions" / version
        folder.mkdir(parents=True)
        for path in sorted(files, key=lambda path: path == "manifest.json"):
            (folder / path).write_bytes(files[path])

    def point(self, version: str, files: Files, alias: str = "champion") -> None:
        draft = self.root / "aliases" / ".draft"
        draft.write_bytes(alias_file(version, files))
        draft.rename(self.root / "aliases" / f"{alias}.json")

    def follow(self, every: float | None, alias: str = "champion") -> Iterator[tuple[str, Any]]:
        return load("follow_folder").follow(self.root, alias, every)

    def damage(self, version: str, path: str) -> None:
        file = self.root / "versions" / version / path
        file.write_bytes(flip(file.read_bytes()))

    def argv(self) -> list[str]:
        return ["follow_folder.py", str(self.root)]


class S3:
    def __init__(self, server: S3Server, local: Path):
        self.client, self.local = server.client(), local
        server.create_bucket("models")

    def _write(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket="models", Key=f"nightly/assistant/{path}", Body=data)

    def put(self, version: str, files: Files) -> None:
        for path in sorted(files, key=lambda path: path == "manifest.json"):
            self._write(f"versions/{version}/{path}", files[path])

    def point(self, version: str, files: Files, alias: str = "champion") -> None:
        self._write(f"aliases/{alias}.json", alias_file(version, files))

    def follow(self, every: float | None, alias: str = "champion") -> Iterator[tuple[str, Any]]:
        return load("follow_s3").follow("s3://models/nightly/assistant", self.local, alias, every)

    def damage(self, version: str, path: str) -> None:
        key = f"nightly/assistant/versions/{version}/{path}"
        # Stored anew, so that S3's own checksum of the object agrees with the damage.
        data = self.client.get_object(Bucket="models", Key=key)["Body"].read()
        self.client.put_object(Bucket="models", Key=key, Body=flip(data))

    def argv(self) -> list[str]:
        return ["follow_s3.py", "s3://models/nightly/assistant", "--local", str(self.local)]


class Hub:
    def __init__(self, server: HubServer):
        self.server = server
        server.create_repo("org/assistant")

    def put(self, version: str, files: Files) -> None:
        self.server.branch("org/assistant", f"release/{version}")
        self.server.commit("org/assistant", files, f"release/{version}")

    def point(self, version: str, files: Files, alias: str = "champion") -> None:
        branch = "main" if alias == "champion" else f"alias/{alias}"
        if alias != "champion":
            self.server.branch("org/assistant", branch)
        gone = [path for path in self.server.files("org/assistant", branch) if not path.startswith(".")]
        content = files | {f"aliases/{alias}.json": alias_file(version, files)}
        self.server.commit("org/assistant", content, branch, delete=gone)

    def follow(self, every: float | None, alias: str = "champion") -> Iterator[tuple[str, Any]]:
        return load("follow_hub").follow("org/assistant", alias, every)

    def damage(self, version: str, path: str) -> None:
        for route in ("lfs_get", "resolve"):
            self.server.fail(route, "flip", times=None, path=path)

    def argv(self) -> list[str]:
        return ["follow_hub.py", "org/assistant"]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[HubServer]:
    from huggingface_hub import constants

    with HubServer() as server:
        # The library reads its environment once, at import, which another test may have caused.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Generator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["folder", "s3", "hub"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Folder(tmp_path)
    server = request.getfixturevalue(request.param)
    return S3(server, tmp_path / "local") if request.param == "s3" else Hub(server)


def weights_of(files: Files) -> dict[str, Any]:
    from safetensors.torch import load as load_tensors

    return load_tensors(files["model.safetensors"])


def is_same(model: Any, files: Files) -> bool:
    """Whether every tensor of the released file is in the model, bit by bit."""
    held = model.state_dict()
    return all(held[name].equal(tensor) for name, tensor in weights_of(files).items())


@pytest.fixture(autouse=True)
def impatient(readers_on_path: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that finds nothing new for long fails its test; it would look for ever."""
    deadline = time.monotonic() + 15

    def sleep(seconds: float) -> None:
        if time.monotonic() > deadline:
            pytest.fail("the reader found nothing more")
        time.sleep(seconds)

    monkeypatch.setattr(load("reader"), "time", SimpleNamespace(sleep=sleep))


def test_a_reader_loads_only_whole_released_models_while_releases_land_and_go_back(
    place: Place, releases: dict[str, Files]
):
    first, second, third, last = releases
    place.put(first, releases[first])
    place.point(first, releases[first])

    def publish() -> None:
        """Each version is laid down and goes live, one is taken back, and nobody waits for the reader."""
        for version, is_new in ((second, True), (third, True), (second, False), (third, False), (last, True)):
            time.sleep(0.15)
            if is_new:
                place.put(version, releases[version])
            place.point(version, releases[version])

    publisher = threading.Thread(target=publish)
    publisher.start()
    seen: list[str] = []
    for version, model in place.follow(every=0.01):
        assert isinstance(model, LlamaForCausalLM) and is_same(model, releases[version]), version
        seen.append(version)
        if version == last:
            break
    publisher.join()
    # What came and went while it loaded is no loss, but something must have been seen on the way.
    assert len(seen) >= 3


def test_a_damaged_file_is_refused_and_named(place: Place, releases: dict[str, Files]):
    version = next(iter(releases))
    place.put(version, releases[version])
    place.point(version, releases[version])
    place.damage(version, "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged: expected sha256 [0-9a-f]{64}, found"):
        next(place.follow(every=None))


def test_a_manifest_that_is_not_the_one_that_went_live_is_refused(place: Place, releases: dict[str, Files]):
    version, other = list(releases)[:2]
    place.put(version, releases[version])
    place.point(version, releases[version] | {"manifest.json": releases[other]["manifest.json"]})
    if isinstance(place, Hub):
        # There the files of the branch are the release, so only the alias's file can be wrong.
        alias = alias_file(version, releases[other])
        place.server.commit("org/assistant", releases[version] | {"aliases/champion.json": alias})
    with pytest.raises(ValueError, match=r"manifest\.json: damaged"):
        next(place.follow(every=None))


def test_a_look_that_fails_keeps_the_model_and_the_next_one_finds_what_is_live(
    place: Place, releases: dict[str, Files], caplog: pytest.LogCaptureFixture
):
    """The alias is not there yet at the first looks; a server that starts before the first release waits."""
    version = next(iter(releases))

    def publish() -> None:
        while "nothing new is loaded" not in caplog.text:
            time.sleep(0.01)
        place.put(version, releases[version])
        place.point(version, releases[version])

    publisher = threading.Thread(target=publish)
    with caplog.at_level(logging.WARNING, "reader"):
        publisher.start()
        assert next(place.follow(every=0.01))[0] == version
    publisher.join()


def test_another_alias_can_be_followed(place: Place, releases: dict[str, Files]):
    live, tried = list(releases)[:2]
    for version in (live, tried):
        place.put(version, releases[version])
    place.point(live, releases[live])
    place.point(tried, releases[tried], alias="canary")
    assert next(place.follow(None, "canary"))[0] == tried
    assert next(place.follow(None))[0] == live


def test_the_command_line_names_what_it_loads(
    place: Place, releases: dict[str, Files], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    version = next(iter(releases))
    place.put(version, releases[version])
    place.point(version, releases[version])
    script, *arguments = place.argv()
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--once"])
    with caplog.at_level(logging.INFO, "reader"):
        runpy.run_path(str(READERS / script), run_name="__main__")
    assert f"now live: {version} (LlamaForCausalLM)" in caplog.text


def test_on_s3_a_release_is_downloaded_once_and_nothing_unfinished_is_left(
    s3: S3Server, tmp_path: Path, releases: dict[str, Files]
):
    place, version = S3(s3, tmp_path / "local"), next(iter(releases))
    place.put(version, releases[version])
    place.point(version, releases[version])
    s3.fail("GetObject", "status", key_contains="model.safetensors", status=403)
    with pytest.raises(ClientError, match="AccessDenied"):
        next(place.follow(None))
    assert list(place.local.iterdir()) == []
    next(place.follow(None))
    digest = sha256(releases[version]["manifest.json"])
    assert [entry.name for entry in place.local.iterdir()] == [f"{version}-{digest[:12]}"]
    s3.requests.clear()
    next(place.follow(None))
    assert [request.path for request in s3.requests] == ["/models/nightly/assistant/aliases/champion.json"]


def test_on_the_hub_a_file_that_was_damaged_on_the_way_is_fetched_again(hub: HubServer, releases: dict[str, Files]):
    place, version = Hub(hub), next(iter(releases))
    place.put(version, releases[version])
    place.point(version, releases[version])
    hub.fail("lfs_get", "flip", times=1, path="model.safetensors")
    found, model = next(place.follow(None))
    assert found == version and is_same(model, releases[version])


def test_a_sentence_transformers_release_is_loaded_as_one(tmp_path: Path):
    folder = save_encoder(tmp_path / "encoder", 1)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    place, version = Folder(tmp_path), "20261120-000000000000"
    content = with_manifest(version, {path: file.read_bytes() for path, file in files.items()})
    shutil.copytree(folder, place.root / "versions" / version)
    (place.root / "versions" / version / "manifest.json").write_bytes(content["manifest.json"])
    place.point(version, content)
    _, model = next(place.follow(None))
    assert model.encode(["a b"]).shape == (1, 16)


def test_readers_import_nothing_of_this_repository():
    for path in READERS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from tasks" not in text and "from flows" not in text and "import tasks" not in text, path
