import errno
import hashlib
import os
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import snapshot_download

from tasks.cache import ResultCache
from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.remote.access import HubAccess, use_access
from tasks.sources.fetch import fetch_files, known_digest
from tasks.sources.hub import HubSource

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB, stored as LFS.
CONFIG = b'{"model_type": "llama"}\n'
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"
FILES = {"README.md": CARD, "config.json": CONFIG, "model.safetensors": WEIGHTS}


def seed(hub: HubServer, **options: bool) -> str:
    hub.create_repo("org/base", **options)
    return hub.commit("org/base", FILES)


def stored_files(cache: ResultCache) -> list[bytes]:
    """Every content in the cache's content store."""
    return [path.read_bytes() for path in (cache.folder / "files").glob("[!.]*/*") if path.suffix != ".used"]


def test_the_list_says_size_and_content_of_every_file(hub: HubServer):
    commit = seed(hub)
    source = HubSource("org/base")
    assert (source.uri, source.revision, source.licence) == (f"hub://org/base@{commit}", commit, "apache-2.0")
    listed = source.list_files()
    assert list(listed) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    assert listed["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    # As `git hash-object` does it.
    blob = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert (listed["config.json"].identity, listed["config.json"].sha256) == (f"git:{blob}", None)
    assert listed["config.json"].size == len(CONFIG)


def test_a_card_without_a_licence_states_none(hub: HubServer):
    hub.create_repo("org/base")
    hub.commit("org/base", {"config.json": b"{}"})
    assert HubSource("org/base").licence is None
    hub.commit("org/base", {"README.md": b"---\nlicense:\n- mit\n- other\n---\n"})
    assert HubSource("org/base").licence == "mit, other"


def test_files_are_fetched_whole_and_verified(hub: HubServer, cache: ResultCache):
    seed(hub)
    fetched = fetch_files(HubSource("org/base"), ["model.safetensors", "config.json"], cache)
    assert list(fetched) == ["model.safetensors", "config.json"]
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert fetched["config.json"].digest.sha256 == hashlib.sha256(CONFIG).hexdigest()
    assert not list((cache.folder / "files").glob(".*"))


def test_what_was_fetched_once_costs_no_request_again_under_any_name(hub: HubServer, cache: ResultCache):
    seed(hub)
    fetch_files(HubSource("org/base"), FILES, cache)
    hub.create_repo("org/copy")
    hub.commit("org/copy", {"config.json": CONFIG, "weights/model.safetensors": WEIGHTS})
    source = HubSource("org/copy")
    assert known_digest(source, "config.json", cache) is not None
    hub.requests.clear()
    again = fetch_files(source, ["config.json", "weights/model.safetensors"], cache)
    assert again["config.json"].path.read_bytes() == CONFIG
    assert not hub.requests


def test_a_branch_that_moves_after_it_was_resolved_changes_nothing(hub: HubServer, cache: ResultCache):
    seed(hub)
    source = HubSource("org/base", revision="main")
    hub.commit("org/base", {"config.json": b"{}"}, delete=["model.safetensors"])
    fetched = fetch_files(source, ["config.json", "model.safetensors"], cache)
    assert fetched["config.json"].path.read_bytes() == CONFIG


def test_tags_commits_and_branches_are_resolved(hub: HubServer):
    commit = seed(hub)
    hub.tag("org/base", "v1")
    hub.commit("org/base", {"config.json": b"{}"})
    assert HubSource("org/base", revision="v1").revision == commit
    assert HubSource("org/base", revision=commit).revision == commit
    with pytest.raises(NotFoundError, match=r"org/base@v2: there is no such revision"):
        HubSource("org/base", revision="v2")


def test_a_folder_or_a_file_of_a_data_repository_can_be_the_source(hub: HubServer, cache: ResultCache):
    hub.create_repo("org/data", "dataset")
    rows = {"news/train.jsonl": b"{}\n", "news/deep/a.jsonl": b"[]\n", "law.jsonl": b"{}\n"}
    commit = hub.commit("org/data", rows, repo_type="dataset")
    source = HubSource("org/data", "dataset", folder="news")
    assert source.uri == f"hub://org/data/news@{commit}"
    assert list(source.list_files()) == ["deep/a.jsonl", "train.jsonl"]
    assert fetch_files(source, ["deep/a.jsonl"], cache)["deep/a.jsonl"].path.read_bytes() == b"[]\n"
    one = HubSource("org/data", "dataset", folder="law.jsonl")
    assert fetch_files(one, one.list_files(), cache)["law.jsonl"].path.read_bytes() == b"{}\n"
    with pytest.raises(NotFoundError, match="there is no folder or file 'sports' in this repository"):
        HubSource("org/data", "dataset", folder="sports")


def test_ranges_are_read_without_the_rest(hub: HubServer):
    seed(hub)
    source = HubSource("org/base")
    assert source.read_range("model.safetensors", 1000, 5) == WEIGHTS[1000:1005]
    assert source.read_range("config.json", len(CONFIG) - 2, 100) == CONFIG[-2:]
    assert source.read_range("config.json", len(CONFIG), 10) == b""
    with pytest.raises(NotFoundError, match=r"there is no file 'nothing'; files: .gitattributes, README.md"):
        source.read_range("nothing", 0, 1)


def test_a_private_repository_is_not_found_without_a_token_and_says_what_to_do(hub: HubServer):
    seed(hub, private=True)
    with (
        use_access(hub=HubAccess(endpoint=hub.endpoint)),
        pytest.raises(NotFoundError, match=r"private and the token .* may not see it.*HF_TOKEN"),
    ):
        HubSource("org/base")
    assert HubSource("org/base").list_files()


def test_a_gated_repository_without_access_says_so(hub: HubServer, cache: ResultCache):
    seed(hub, gated=True)
    source = HubSource("org/base")
    with pytest.raises(StoreError, match=r"config.json@.*gated and the token at hand has no access; ask for access"):
        fetch_files(source, ["config.json"], cache)
    hub.grant_access("org/base", hub.token)
    assert fetch_files(source, ["config.json"], cache)


@pytest.mark.parametrize("route", ["model_info", "resolve", "lfs_get"])
@pytest.mark.parametrize("kind", ["reset", "truncate", "429", "500", "503"])
def test_faults_that_pass_are_overcome(hub: HubServer, cache: ResultCache, pauses: list[float], route: str, kind: str):
    seed(hub)
    if kind.isdigit():
        hub.fail(route, "status", times=2, status=int(kind), retry_after=3 if kind == "429" else None)
    else:
        hub.fail(route, kind, times=2)
    fetched = fetch_files(HubSource("org/base"), ["config.json", "model.safetensors"], cache)
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    assert fetched["config.json"].path.read_bytes() == CONFIG
    if kind == "429":
        assert min(pauses) >= 3


def test_a_server_that_stays_broken_is_given_up_with_url_and_attempts(
    hub: HubServer, cache: ResultCache, pauses: list[float]
):
    seed(hub)
    source = HubSource("org/base")
    fault = hub.fail("resolve", "status", times=None, status=503)
    with pytest.raises(TransientStoreError, match=r"http://127.0.0.1:\d+/org/base/config.json@.* failed 5 times"):
        fetch_files(source, ["config.json"], cache)
    assert fault.seen == 5 and sum(pauses) < 60


def test_a_token_that_expired_is_not_tried_again(hub: HubServer, cache: ResultCache, pauses: list[float]):
    seed(hub)
    source = HubSource("org/base")
    hub.expire_tokens()
    with pytest.raises(StoreError, match="the Hub does not know the token"):
        fetch_files(source, ["config.json"], cache)
    assert not pauses


def test_a_repository_that_is_deleted_after_it_was_listed_is_named(hub: HubServer, cache: ResultCache):
    seed(hub)
    source = HubSource("org/base")
    hub.delete_repo("org/base")
    with pytest.raises(NotFoundError, match=r"org/base/config.json@.*there is no such repository"):
        fetch_files(source, ["config.json"], cache)


@pytest.mark.parametrize(("route", "path"), [("lfs_get", "model.safetensors"), ("resolve", "config.json")])
def test_a_flipped_byte_is_noticed_and_the_file_fetched_anew(
    hub: HubServer, cache: ResultCache, caplog: pytest.LogCaptureFixture, route: str, path: str
):
    seed(hub)
    fault = hub.fail(route, "flip", path=path)
    fetched = fetch_files(HubSource("org/base"), [path], cache)
    assert fetched[path].path.read_bytes() == FILES[path]
    assert fault.seen == 1 and "the content is not right" in caplog.text


@pytest.mark.parametrize(("route", "path"), [("lfs_get", "model.safetensors"), ("resolve", "config.json")])
def test_bytes_that_stay_damaged_never_reach_the_content_store(
    hub: HubServer, cache: ResultCache, route: str, path: str
):
    seed(hub)
    hub.fail(route, "flip", times=None)
    with pytest.raises(StoreError, match=rf"{path} of hub://org/base@.*expected .*, found .*damaged on its way"):
        fetch_files(HubSource("org/base"), [path], cache)
    assert stored_files(cache) == []
    hub.clear()
    seed(hub)
    assert fetch_files(HubSource("org/base"), [path], cache)[path].path.read_bytes() == FILES[path]


def test_an_interrupted_download_goes_on_where_it_was(hub: HubServer, cache: ResultCache, pauses: list[float]):
    seed(hub)
    source = HubSource("org/base")
    truncated = hub.fail("lfs_get", "truncate")  # Half of the body comes, then nothing more.
    broken = hub.fail("lfs_get", "reset", times=None)
    with pytest.raises(TransientStoreError):
        fetch_files(source, ["model.safetensors"], cache)
    (part,) = (cache.folder / "files").glob(".partial-*/part")
    assert truncated.seen == 1 and part.read_bytes() == WEIGHTS[: len(WEIGHTS) // 2]
    broken.times = 0
    hub.requests.clear()
    seen: list[int] = []
    fetched = fetch_files(source, ["model.safetensors"], cache, report=lambda done, total: seen.append(done))
    assert fetched["model.safetensors"].path.read_bytes() == WEIGHTS
    # 206: a range was asked for. The first half is not read again.
    assert [request.status for request in hub.requests if request.route == "lfs_get"] == [206]
    assert seen[:2] == [0, len(WEIGHTS) // 2] and seen[-1] == len(WEIGHTS)


def test_a_copy_in_the_users_own_cache_is_linked_not_fetched(
    hub: HubServer, cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = seed(hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    snapshot = Path(
        snapshot_download(
            "org/base", revision=commit, cache_dir=tmp_path / "hf", endpoint=hub.endpoint, token=hub.token
        )
    )
    source = HubSource("org/base")
    hub.requests.clear()
    fetched = fetch_files(source, ["config.json", "model.safetensors"], cache)
    assert not hub.requests
    assert os.path.samefile(fetched["model.safetensors"].path, snapshot / "model.safetensors")
    assert (snapshot / "config.json").read_bytes() == CONFIG


def test_a_copy_on_another_file_system_is_copied(
    hub: HubServer, cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = seed(hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    snapshot = tmp_path / "hf" / "models--org--base" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(CONFIG)

    def refuse(source: Path, goal: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = HubSource("org/base")
    hub.requests.clear()
    fetched = fetch_files(source, ["config.json"], cache)["config.json"].path
    assert fetched.read_bytes() == CONFIG and fetched.stat().st_nlink == 1
    assert not hub.requests


def test_a_damaged_copy_in_the_users_own_cache_is_not_used(
    hub: HubServer,
    cache: ResultCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    commit = seed(hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    snapshot = tmp_path / "hf" / "models--org--base" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(CONFIG.replace(b"llama", b"mamba"))
    fetched = fetch_files(HubSource("org/base"), ["config.json"], cache)
    assert fetched["config.json"].path.read_bytes() == CONFIG
    assert "config.json is not used: expected git" in caplog.text
