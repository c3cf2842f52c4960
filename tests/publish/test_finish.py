"""What a night that releases nothing does about the live version."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from tasks.cache import ResultCache
from tasks.errors import ReleaseError
from tasks.publish.finish import finish_release
from tasks.publish.release import publish_release
from tasks.registry.releases import Registry, open_registry
from tasks.settings import PublishSettings


@pytest.fixture
def settings(tmp_path: Path) -> PublishSettings:
    return PublishSettings(to=[str(tmp_path / "releases")])


@pytest.fixture
def live(make_report, settings: PublishSettings, now: datetime, cache: ResultCache) -> tuple[Registry, Path]:
    """The registry, and the folder of its only version, which is live."""
    release = publish_release(make_report(), settings, now=now, by="night", cache=cache)
    registry = open_registry(settings.to[0], "demo")
    return registry, Path(settings.to[0]) / registry.version_path(release.version)


def test_a_live_version_that_lost_files_is_told(
    live: tuple[Registry, Path], settings: PublishSettings, now: datetime, cache: ResultCache, caplog
):
    registry, folder = live
    finish_release(registry, settings, now=now, cache=cache)
    assert "is not whole" not in caplog.text
    (folder / "model.safetensors").unlink()
    finish_release(registry, settings, now=now, cache=cache)
    assert "is not whole: model.safetensors: missing; `cocktail rollback` takes it back" in caplog.text


def test_a_live_manifest_that_lost_what_was_decided_is_an_error_before_anybody_is_told(
    live: tuple[Registry, Path], settings: PublishSettings, now: datetime, cache: ResultCache
):
    registry, folder = live
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["models"], manifest["gate"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=r"no valid models, gate; the manifest is damaged: .*`cocktail rollback`"):
        finish_release(registry, settings, now=now, cache=cache)
