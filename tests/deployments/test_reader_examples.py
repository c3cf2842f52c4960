"""The ten-line readers of the page, run as they stand there, release after release."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from manifests import minimal_manifest
from s3_server import S3Server
from tiny_models import save_decoder
from transformers import AutoModelForCausalLM

from tasks.digests import hash_file
from tasks.records import to_json
from tasks.registry.files import encode_json
from tasks.registry.promotion import promote
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.stores.store import Content, content_of

PAGE = Path(__file__).resolve().parents[2] / "deployments/readers/README.md"
HUB, S3 = re.findall(r"```python\n(# (?:The Hub|S3):.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def release(registry: Registry, folder: Path, number: int) -> Any:
    """A tiny decoder of its own, released and made live; the model."""
    save_decoder(folder, seed=number)
    version = f"2026112{number}-{str(number) * 12}"
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    contents = {path: Content(file, hash_file(file)) for path, file in paths.items()}
    files = {path: to_json(content.digest) for path, content in contents.items()}
    contents[MANIFEST_FILE] = content_of(encode_json(minimal_manifest(version, number, str(number) * 64, files)))
    registry.store.upload(registry.version_path(version), contents, last=MANIFEST_FILE)
    expected = registry.read_alias("champion")
    promote(registry, version, "champion", by="t", reason="t", now=datetime.now(UTC), expected=expected)
    return AutoModelForCausalLM.from_pretrained(folder)


def read(example: str) -> Any:
    names: dict[str, Any] = {}
    exec(example, names)
    return names["model"]


def same(left: Any, right: Any) -> bool:
    found, expected = left.state_dict(), right.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("example", [HUB, S3], ids=["hub", "s3"])
def test_an_example_has_ten_lines_at_most(example: str):
    code = [line for line in example.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 10


def test_the_example_for_s3_loads_what_is_live(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    s3.create_bucket("models")
    registry = open_registry("s3://models", "assistant")
    for number in (1, 2):
        model = release(registry, tmp_path / str(number), number)
        assert same(read(S3), model)


def test_the_example_for_the_hub_loads_what_is_live(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The client reads its endpoint once, at import.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    registry = open_registry("hub://org", "assistant")
    for number in (1, 2):
        model = release(registry, tmp_path / str(number), number)
        assert same(read(HUB), model)
