"""What verifying finds."""

from datetime import datetime
from pathlib import Path

import pytest

from tasks.registry.promotion import promote
from tasks.registry.releases import Registry
from tasks.registry.verification import verify_release


def folder_of(registry: Registry, version: str) -> Path:
    return Path(registry.store.destination) / registry.version_path(version)


@pytest.fixture
def version(registry: Registry, make_release, now: datetime) -> str:
    version = make_release(1)
    promote(registry, version, "champion", by="me", reason="", now=now, expected=None)
    return version


def test_a_whole_release_has_no_problems(registry: Registry, version: str):
    assert verify_release(registry, version) == verify_release(registry, "champion") == []


def test_a_flipped_byte_is_found(registry: Registry, version: str):
    file = folder_of(registry, version) / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"w", b"v"))
    [problem] = verify_release(registry, version)
    assert problem.startswith("model.safetensors: changed: expected sha256")


def test_missing_cut_and_extra_files_are_all_found_at_once(registry: Registry, version: str):
    folder = folder_of(registry, version)
    (folder / "config.json").unlink()
    (folder / "README.md").write_bytes(b"#")
    (folder / "more").mkdir()
    (folder / "more" / ".pickle.bin").write_bytes(b"0")
    (folder / "link").symlink_to(folder / "more")
    assert sorted(verify_release(registry, version)) == [
        "README.md: changed: expected 6 bytes, found 1",
        "config.json: missing",
        "link: extra: the manifest does not know it",
        "more/.pickle.bin: extra: the manifest does not know it",
    ]


def test_a_manifest_that_was_rewritten_is_found_through_the_alias(registry: Registry, version: str):
    path = f"{registry.version_path(version)}/manifest.json"
    registry.store.write_bytes(path, registry.store.read_bytes(path) + b"\n")
    [problem] = verify_release(registry, version)
    assert problem.startswith("manifest.json: changed: alias champion was moved to sha256")


def test_a_manifest_of_another_version_is_found(registry: Registry, version: str, make_release):
    other = make_release(2)
    data = registry.store.read_bytes(f"{registry.version_path(version)}/manifest.json")
    registry.store.write_bytes(f"{registry.version_path(other)}/manifest.json", data)
    assert f"manifest.json: changed: it is of version {version}" in verify_release(registry, other)


def test_a_damaged_manifest_is_the_only_problem_told(registry: Registry, version: str):
    registry.store.write_bytes(f"{registry.version_path(version)}/manifest.json", b"{")
    [problem] = verify_release(registry, version)
    assert "the file is damaged" in problem
