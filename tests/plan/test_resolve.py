import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from s3_server import S3Server
from safetensors.numpy import load_file
from seeding import put_on_hub, put_on_s3

from tasks.cache import ResultCache
from tasks.digests import hash_file
from tasks.download.candidate import download_checkpoint
from tasks.errors import CheckpointError, NotFoundError, StoreError
from tasks.plan.resolve import resolve_checkpoint
from tasks.registry.releases import open_registry
from tasks.stores.store import Content


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


def test_mlflow_is_no_place_to_read_models_from(cache: ResultCache):
    with pytest.raises(StoreError, match=r"mlflow://: MLflow keeps no models here; name the place that it points to"):
        resolve_checkpoint("news", "mlflow://", None, cache)


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


def test_a_repository_becomes_a_commit_and_the_digests_of_the_models_files(
    family: dict[str, Path], cache: ResultCache, hub: HubServer
):
    folder = family["news"]
    expected = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"a copy in another form")
    commit = put_on_hub(hub, "org/news", folder).partition("@")[2]
    found = resolve_checkpoint("news", "org/news", None, cache)
    assert (found.name, found.model, found.licence) == ("news", "org/news", "mit")
    assert (found.revision, found.uri) == (commit, f"hub://org/news@{commit}")
    # .gitattributes, the card and weights in other forms are no part of the model.
    assert found.files == expected


def test_a_branch_a_tag_and_a_commit_are_followed_to_the_commit(
    family: dict[str, Path], cache: ResultCache, hub: HubServer
):
    first = put_on_hub(hub, "org/news", family["base"]).partition("@")[2]
    hub.tag("org/news", "v1")
    put_on_hub(hub, "org/news", family["news"])
    hub.branch("org/news", "next")
    head = hub.head("org/news")
    revisions = {reference: resolve_checkpoint("news", f"org/news{reference}", None, cache).revision
                 for reference in ("", "@next", "@v1", f"@{first}")}  # fmt: skip
    assert revisions == {"": head, "@next": head, "@v1": first, f"@{first}": first}


def test_weights_that_are_there_twice_are_taken_once(family: dict[str, Path], cache: ResultCache, hub: HubServer):
    (family["news"] / "consolidated.safetensors").write_bytes(b"the same weights for another library")
    put_on_hub(hub, "org/news", family["news"])
    found = resolve_checkpoint("news", "org/news", None, cache)
    assert list(found.files) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_a_gated_a_private_and_a_missing_repository_and_a_missing_revision_say_what_to_do(
    family: dict[str, Path], cache: ResultCache, hub: HubServer, monkeypatch: pytest.MonkeyPatch
):
    put_on_hub(hub, "org/news", family["news"])
    hub.create_repo("org/gated", gated=True)
    put_on_hub(hub, "org/gated", family["news"])
    hub.create_repo("org/private", private=True)
    put_on_hub(hub, "org/private", family["news"])
    with pytest.raises(StoreError, match=r"org/gated.*: this repository is gated .* ask for access on its page"):
        resolve_checkpoint("news", "org/gated", None, cache)
    with pytest.raises(NotFoundError, match=r"org/news@v9: there is no such revision"):
        resolve_checkpoint("news", "org/news@v9", None, cache)
    monkeypatch.delenv("HF_TOKEN")
    for name in ("org/private", "org/missing"):
        with pytest.raises(
            NotFoundError, match=rf"{name}@main: there is no such repository, or it is private .* HF_TOKEN"
        ):
            resolve_checkpoint("news", name, None, cache)


def test_a_prefix_without_a_config_is_named_with_what_is_there(
    family: dict[str, Path], cache: ResultCache, s3: S3Server
):
    put_on_s3(s3, "s3://models/all/news", family["news"])
    with pytest.raises(
        CheckpointError,
        match=r"s3://models/all: there is no config\.json, but news/config\.json, .*; is this a checkpoint",
    ):
        resolve_checkpoint("news", "s3://models/all", None, cache)


def test_a_model_without_weights_is_refused(family: dict[str, Path], cache: ResultCache, hub: HubServer):
    (family["news"] / "model.safetensors").unlink()
    put_on_hub(hub, "org/news", family["news"])
    with pytest.raises(
        CheckpointError, match=r"org/news: expected model\.safetensors or .*index\.json, found no weights"
    ):
        resolve_checkpoint("news", "org/news", None, cache)


def test_the_licence_of_folders_prefixes_and_releases_stands_in_their_cards(
    family: dict[str, Path], release: Any, cache: ResultCache, s3: S3Server
):
    assert resolve_checkpoint("news", str(family["news"]), None, cache).licence is None
    (family["news"] / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    version = release("support")
    folder = release.destination / "support" / "versions" / version
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    put_on_s3(s3, "s3://models/news", family["news"])
    place = f"release:{release.destination}/support"
    for reference, licence in {
        str(family["news"]): "apache-2.0",
        "s3://models/news": "apache-2.0",
        place: "mit",
    }.items():
        assert resolve_checkpoint("news", reference, None, cache).licence == licence
    (folder / "README.md").unlink()
    assert resolve_checkpoint("news", place, None, cache).licence is None


@pytest.fixture
def pickled(family: dict[str, Path]) -> Path:
    """The model `news` with its weights as a pickle only."""
    tensors = load_file(family["news"] / "model.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, family["news"] / "pytorch_model.bin")
    (family["news"] / "model.safetensors").unlink()
    return family["news"]


def test_pickles_are_refused_by_name_with_the_ways_out(pickled: Path, cache: ResultCache, hub: HubServer):
    put_on_hub(hub, "org/news", pickled)
    with pytest.raises(
        CheckpointError,
        match=r"org/news: .* only as pickles.*: pytorch_model\.bin; .*safetensors .*`allow_pickle: true`",
    ):
        resolve_checkpoint("news", "org/news", None, cache)
    assert hub.count("lfs_get") == 0


def test_pickles_that_are_allowed_become_safetensors_with_the_same_tensors(
    pickled: Path, write_model: Any, tensors: Any, cache: ResultCache, hub: HubServer, s3: S3Server
):
    commit = put_on_hub(hub, "org/news", pickled).partition("@")[2]
    put_on_s3(s3, "s3://models/news", pickled)
    found = [resolve_checkpoint("news", place, None, cache, allow_pickle=True)
             for place in ("org/news", "s3://models/news", str(pickled))]  # fmt: skip
    assert len({model.digest for model in found}) == 1
    assert [model.revision for model in found] == [commit, *[f"sha256:{model.digest}" for model in found[1:]]]
    expected = tensors[1](tensors[0](0), 1)
    read = load_file(found[0].folder / "model.safetensors")
    assert read.keys() == expected.keys()
    assert all((read[name] == expected[name]).all() for name in expected)
    assert "pytorch_model.bin" not in found[0].files
    # Fetched and converted once.
    hub.requests.clear()
    assert resolve_checkpoint("news", "org/news", None, cache, allow_pickle=True) == found[0]
    assert [request.route for request in hub.requests] == ["model_info"]


def test_safetensors_are_taken_where_there_are_both(family: dict[str, Path], cache: ResultCache, hub: HubServer):
    (family["news"] / "pytorch_model.bin").write_bytes(b"no pickle at all")
    put_on_hub(hub, "org/news", family["news"])
    strict, allowed = (
        resolve_checkpoint("news", "org/news", None, cache, allow_pickle=allow) for allow in (False, True)
    )
    assert strict == allowed


def test_a_release_elsewhere_is_known_by_its_manifest(
    family: dict[str, Path], release: Any, cache: ResultCache, s3: S3Server
):
    version = release("support")
    put_on_s3(s3, "s3://models/support", release.destination / "support", with_sha256=False)
    found = resolve_checkpoint("old", "release:s3://models/support@champion", None, cache)
    local = resolve_checkpoint("old", f"release:{release.destination}/support", None, cache)
    assert (found.files, found.revision) == (local.files, version)
    assert found.uri == f"s3://models/support/versions/{version}"
    assert cache.find_file(found.files["model.safetensors"]) is None


def test_a_release_on_the_hub_is_known_by_its_manifest_and_fetched_from_its_tag(
    release: Any, cache: ResultCache, hub: HubServer
):
    version = release("support")
    registry = open_registry("hub://org", "support")
    folder = release.destination / "support" / "versions" / version
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    contents = {path.name: Content(path, hash_file(path)) for path in folder.iterdir()}
    where = registry.version_path(version)
    registry.store.upload(where, contents, last="manifest.json")
    alias = (release.destination / "support" / "aliases" / "champion.json").read_bytes()
    registry.store.compare_and_swap(registry.alias_path("champion"), None, alias, points_at=where)
    found = resolve_checkpoint("old", "release:hub://org/support@champion", None, cache)
    local = resolve_checkpoint("old", f"release:{release.destination}/support", None, cache)
    assert (found.files, found.revision, found.uri) == (local.files, version, f"hub://org/support@v{version}")
    assert found.licence == local.licence == "mit"
    assert cache.find_file(found.files["model.safetensors"]) is None
    here = download_checkpoint(found, cache)
    assert (here.folder / "model.safetensors").read_bytes() == (local.folder / "model.safetensors").read_bytes()
