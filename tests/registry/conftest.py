"""A registry in a temporary folder, and releases of a few bytes in it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from manifests import minimal_manifest

from tasks.records import Evaluation, to_json
from tasks.registry.files import encode_evaluation, encode_json, evaluation_path
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.stores.store import content_of

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)

MakeRelease = Callable[[int], str]


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(str(tmp_path / "releases"), "demo")


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation("news", "merged", "accuracy", True, (1.0, 0.0, 0.1), "d" * 64, seconds=3.5, conditions="float32")


@pytest.fixture
def make_release(registry: Registry, evaluation: Evaluation) -> MakeRelease:
    """Write the release number n; its fingerprint is n repeated and its date runs backwards, as clocks may."""

    def make(number: int) -> str:
        version = f"2026{12 - number:02d}01-{str(number) * 12}"
        data = {
            "config.json": b"{}",
            "model.safetensors": f"weights {number}".encode(),
            "README.md": b"# card",
            evaluation_path(evaluation): encode_evaluation(evaluation),
        }
        contents = {path: content_of(content) for path, content in data.items()}
        files = {path: to_json(content.digest) for path, content in contents.items()}
        manifest = minimal_manifest(version, number, str(number) * 64, files)
        contents[MANIFEST_FILE] = content_of(encode_json(manifest))
        registry.store.upload(registry.version_path(version), contents, last=MANIFEST_FILE)
        return version

    return make
