import os
from pathlib import Path
from typing import Any

import pytest

from tasks.cache import ResultCache
from tasks.digests import hash_file
from tasks.errors import CheckpointError, NotFoundError, StoreError
from tasks.plan.resolve import resolve_checkpoint


def test_a_folder_becomes_the_digests_of_its_files(family: dict[str, Path], cache: ResultCache):
    checkpoint = resolve_checkpoint("news", str(family["news"]), None, cache)
    assert (checkpoint.name, checkpoint.model, checkpoint.folder) == ("news", str(family["news"]), family["news"])
    assert checkpoint.revision == f"sha256:{checkpoint.digest}"
    assert checkpoint.files == {path.name: hash_file(path) for path in sorted(family["news"].iterdir())}


def test_equal_folders_have_one_digest_wherever_they_lie(write_model: Any, cache: ResultCache):
    one, two = (resolve_checkpoint(name, str(write_model(name)), None, cache) for name in ("one", "two"))
    assert one.digest == two.digest


def test_pinned_content_is_accepted_with_and_without_its_prefix(family: dict[str, Path], cache: ResultCache):
    digest = resolve_checkpoint("news", str(family["news"]), None, cache).digest
    for pin in (digest, f"sha256:{digest}"):
        assert resolve_checkpoint("news", str(family["news"]), pin, cache).digest == digest


def test_other_content_than_pinned_is_refused_with_both_digests(family: dict[str, Path], cache: ResultCache):
    digest = resolve_checkpoint("news", str(family["news"]), None, cache).digest
    with pytest.raises(CheckpointError, match=f"models/news: the recipe pins content sha256:12, found sha256:{digest}"):
        resolve_checkpoint("news", str(family["news"]), "sha256:12", cache)


def test_a_missing_model_is_named(tmp_path: Path, cache: ResultCache):
    with pytest.raises(CheckpointError, match=r"nowhere: no such folder; expected a checkpoint"):
        resolve_checkpoint("news", str(tmp_path / "nowhere"), None, cache)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (
            "org/news@v2",
            r"org/news@v2: this version reads folders.*`hf download org/news --revision v2 --local-dir DIR`",
        ),
        ("hub://org/news", r"`hf download org/news --local-dir DIR`\) and give the path"),
        ("s3://models/news", r"s3://models/news: .*download it first \(`aws s3 sync s3://models/news DIR`"),
    ],
)
def test_places_that_cannot_be_read_yet_come_with_the_command_that_helps(cache: ResultCache, reference: str, text: str):
    with pytest.raises(StoreError, match=text):
        resolve_checkpoint("news", reference, None, cache)


def test_a_file_that_cannot_be_read_is_named(
    family: dict[str, Path], cache: ResultCache, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(cache, "digest_file", refuse)
    with pytest.raises(CheckpointError, match=r"models/news: a file cannot be read: .*Permission denied.*config\.json"):
        resolve_checkpoint("news", str(family["news"]), None, cache)


def test_a_release_is_found_by_alias_and_by_version(release: Any, cache: ResultCache):
    version = release("support")
    by_alias = resolve_checkpoint("old", f"release:{release.destination}/support@champion", None, cache)
    by_version = resolve_checkpoint("old", f"release:{release.destination}/support@{version}", None, cache)
    by_default = resolve_checkpoint("old", f"release:{release.destination}/support", None, cache)
    assert by_alias.revision == by_version.revision == by_default.revision == version
    assert by_alias.files == by_version.files
    assert by_alias.model == f"release:{release.destination}/support@champion"
    assert (by_alias.folder / "config.json").is_file()
    assert "README.md" not in by_alias.files


def test_a_release_that_does_not_exist_is_named(release: Any, cache: ResultCache):
    release("support")
    with pytest.raises(NotFoundError, match="there is no alias 'stable'; aliases: champion"):
        resolve_checkpoint("old", f"release:{release.destination}/support@stable", None, cache)
