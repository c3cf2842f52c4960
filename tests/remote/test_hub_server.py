"""The real clients against the Hub stand-in: what other tests rely on when they use it. Its faults: test_hub_faults."""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

HELPERS = Path(__file__).parents[1] / "helpers"
CARD = "---\nlicense: mit\nbase_model: [org/base]\nbase_model_relation: merge\ntags: [merge]\n---\n# Model\n"
# huggingface_hub 2.4 hands files to its HTTP library in a way that the library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def folder(tmp_path):
    """A model: two small files, an LFS file by name, one by size in a folder."""
    files = {
        "README.md": CARD.encode(),
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "sub/vocab.txt": b"word\n" * 300_000,
    }
    folder = tmp_path / "model"
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


# Upload and download.


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_an_uploaded_folder_comes_back_with_the_same_bytes(hub, api, folder, tmp_path, repo_type):
    assert api.create_repo("org/new", repo_type=repo_type).repo_id == "org/new"
    commit = api.upload_folder(repo_id="org/new", folder_path=folder, repo_type=repo_type)
    path = api.snapshot_download("org/new", cache_dir=tmp_path / "cache", repo_type=repo_type)
    found = content_of(path)
    assert found.pop(".gitattributes").startswith(b"*.safetensors filter=lfs")
    assert found == content_of(folder)
    assert path.endswith(commit.oid) and commit.oid == hub.head("org/new", repo_type=repo_type)
    checked = api.verify_repo_checksums("org/new", repo_type=repo_type, cache_dir=tmp_path / "cache")
    assert checked.checked_count == 5 and not checked.mismatches
    assert hub.count("lfs_put") == 2


def test_ids_are_those_that_git_computes(hub, api):
    hub.create_repo("org/new")
    hub.commit("org/new", {"sub/b.txt": b"a", "sub/sub/c.txt": b"c", "sub/sub.txt": b"d", "sub/m.bin": b"weights"})
    entries = {entry.path: entry for entry in api.list_repo_tree("org/new", recursive=True)}
    # By `git ls-files -s` and `git write-tree` on these files, with the LFS pointer in place of m.bin.
    assert entries["sub/b.txt"].blob_id == "2e65efe2a145dda7ee51d1741299f848e5bf752e"
    assert entries["sub/m.bin"].blob_id == "c6a67be4f3ef29ed4a07b4f2446625126a25cfda"
    assert entries["sub"].tree_id == "403adcc72ebcc4b07b780a30d7f124e2220ecf76"
    assert entries["sub/b.txt"].lfs is None and entries["sub/m.bin"].size == 7
    assert entries["sub/m.bin"].lfs.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_large_object_goes_up_in_parts(hub, api):
    hub.multipart_size = 1000
    content = bytes(range(250)) * 9
    api.create_repo("org/new")
    api.upload_file(repo_id="org/new", path_or_fileobj=content, path_in_repo="a.bin")
    assert hub.files("org/new")["a.bin"] == content
    assert (hub.count("lfs_put"), hub.count("lfs_complete"), hub.count("lfs_verify")) == (3, 1, 1)


def test_uploading_the_same_folder_again_makes_no_commit_and_moves_no_bytes(hub, api, folder):
    api.create_repo("org/new")
    first = api.upload_folder(repo_id="org/new", folder_path=folder)
    puts = hub.count("lfs_put")
    assert api.upload_folder(repo_id="org/new", folder_path=folder).oid == first.oid
    assert (hub.count("commit"), hub.count("lfs_put")) == (1, puts)


def test_a_stale_parent_commit_is_refused(hub, api):
    hub.create_repo("org/new")
    stale = hub.head("org/new")
    hub.commit("org/new", {"a.txt": b"1"})
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(repo_id="org/new", path_or_fileobj=b"2", path_in_repo="a.txt", parent_commit=stale)
    assert hub.files("org/new")["a.txt"] == b"1"


def test_of_writers_that_saw_the_same_head_one_wins(hub, api):
    hub.create_repo("org/new")
    head = hub.head("org/new")

    def write(number):
        try:
            return api.upload_file(
                repo_id="org/new", path_or_fileobj=b"%d" % number, path_in_repo="a.txt", parent_commit=head
            ).oid
        except HfHubHTTPError as error:
            return error.response.status_code

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, range(8)))
    assert results.count(412) == 7
    assert hub.files("org/new")["a.txt"] == b"%d" % results.index(hub.head("org/new"))


def test_one_commit_copies_a_tag_and_deletes_the_rest(hub, api):
    hub.create_repo("org/new")
    hub.commit("org/new", {"a.txt": b"old", "m.safetensors": b"old weights"})
    hub.tag("org/new", "v1")
    head = hub.commit("org/new", {"a.txt": b"new", "m.safetensors": b"new weights", "more/x.bin": b"x", "more/y": b"y"})
    copies = [CommitOperationCopy(path, path, src_revision="v1") for path in ("a.txt", "m.safetensors")]
    operations = [*copies, CommitOperationDelete("more/")]
    api.create_commit("org/new", operations, commit_message="back to v1", parent_commit=head)
    assert hub.files("org/new") == hub.files("org/new", "v1")
    assert hub.count("lfs_put") == hub.count("lfs_batch") == 0


def test_a_commit_of_what_it_may_not_hold_is_refused(hub, api):
    hub.create_repo("org/new")
    lfs = {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 7}
    regular = {"path": "a.bin", "encoding": "base64", "content": "eA=="}
    for key, value, message in (
        ("lfsFile", lfs, "a.bin: LFS object 0+ of this size was never uploaded"),
        ("file", regular, "a.bin: 1 bytes under this name must be uploaded as LFS"),
        ("file", {**regular, "path": "b.txt", "content": "?"}, "b.txt: content is not base64"),
        ("file", {**regular, "path": "a/../b.txt"}, "Invalid path"),
        ("copyFile", {"path": "a.txt"}, "Unknown operation 'copyFile'"),
    ):
        lines = [{"key": "header", "value": {"summary": "broken"}}, {"key": key, "value": value}]
        answer = huggingface_hub.get_session().post(
            f"{hub.endpoint}/api/models/org/new/commit/main",
            content="\n".join(json.dumps(line) for line in lines),
            headers={"Authorization": f"Bearer {hub.token}"},
        )
        assert answer.status_code == 400 and re.match(message, answer.json()["error"])
    assert list(hub.files("org/new")) == [".gitattributes"]


def test_deleting_what_is_not_there_is_refused(hub, api):
    hub.create_repo("org/new")
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", "org/new")


# What there is to know about a repository.


def test_branches_and_tags_can_be_made_read_and_deleted(hub, api):
    hub.create_repo("org/new")
    first = hub.head("org/new")
    api.create_branch("org/new", branch="release/1", revision=first)
    second = api.upload_file(repo_id="org/new", path_or_fileobj=b"1", path_in_repo="a.txt", revision="release/1").oid
    api.create_tag("org/new", tag="v1", revision="release/1")
    refs = api.list_repo_refs("org/new")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "release/1": second}
    assert {ref.ref: ref.target_commit for ref in refs.tags} == {"refs/tags/v1": second}
    assert hub.refs("org/new") == {"branches": {"main": first, "release/1": second}, "tags": {"v1": second}}
    for again in (lambda: api.create_tag("org/new", tag="v1"), lambda: api.create_branch("org/new", branch="main")):
        with pytest.raises(HfHubHTTPError, match="409"):
            again()
    assert [commit.commit_id for commit in api.list_repo_commits("org/new", revision="v1")] == [second, first]
    api.delete_branch("org/new", branch="release/1")
    api.delete_tag("org/new", tag="v1")
    assert hub.refs("org/new") == {"branches": {"main": first}, "tags": {}}
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/new", revision="v1")


def test_information_lists_and_pages(hub, api):
    hub.page_size = 2
    for name in ("org/a", "org/b", "org/c", "other/d"):
        hub.create_repo(name, private=name == "org/c")
    hub.commit("org/a", {"README.md": CARD.encode(), "f/1": b"", "f/2": b"", "f/g/3": b"3", "m.bin": b"4"})
    assert [info.id for info in api.list_models(author="org")] == ["org/a", "org/b", "org/c"]
    assert [info.id for info in api.list_models(author="org", token=False)] == ["org/a", "org/b"]
    tree = [entry.path for entry in api.list_repo_tree("org/a", recursive=True)]
    assert tree == [".gitattributes", "README.md", "f", "f/1", "f/2", "f/g", "f/g/3", "m.bin"]
    assert [entry.path for entry in api.list_repo_tree("org/a", "f")] == ["f/1", "f/2", "f/g"]
    assert [entry.path for entry in api.get_paths_info("org/a", ["f/g", "m.bin", "gone"])] == ["f/g", "m.bin"]
    info = api.model_info("org/a", files_metadata=True)
    assert info.sha == hub.head("org/a") and info.card_data["license"] == "mit"
    assert info.siblings[-1].lfs.sha256 == hashlib.sha256(b"4").hexdigest()
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"


def test_repositories_are_made_once_and_deleted(hub, api):
    assert api.create_repo("org/new", private=True) == f"{hub.endpoint}/org/new"
    assert api.create_repo("org/new", exist_ok=True) == f"{hub.endpoint}/org/new"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/new")
    assert api.model_info("org/new").private
    api.delete_repo("org/new")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("org/new")


# Who may do what.


def test_a_private_repository_does_not_exist_for_strangers(hub, api, tmp_path):
    hub.create_repo("org/secret", private=True)
    with pytest.raises(RepositoryNotFoundError, match="401"):
        api.model_info("org/secret", token=False)
    with pytest.raises(RepositoryNotFoundError, match="404"):
        api.snapshot_download("org/gone", cache_dir=tmp_path)
    assert api.model_info("org/secret", token=hub.read_token).private


def test_a_gated_repository_shows_its_information_but_no_files(hub, api, tmp_path):
    hub.create_repo("org/gated", gated=True)
    assert api.model_info("org/gated").gated == "manual"
    for read in (
        lambda: api.hf_hub_download("org/gated", ".gitattributes", cache_dir=tmp_path),
        lambda: list(api.list_repo_tree("org/gated")),
        lambda: api.auth_check("org/gated"),
    ):
        with pytest.raises(GatedRepoError, match="403"):
            read()
    hub.grant_access("org/gated", hub.token)
    assert Path(api.hf_hub_download("org/gated", ".gitattributes", cache_dir=tmp_path)).is_file()


def test_a_read_token_reads_and_does_not_write(hub, api):
    hub.create_repo("org/new")
    api.auth_check("org/new", token=hub.read_token)
    api.auth_check("org/new", write=True)
    for write in (
        lambda: api.auth_check("org/new", write=True, token=hub.read_token),
        lambda: api.create_repo("org/other", token=hub.read_token),
        lambda: api.create_tag("org/new", tag="v1", token=hub.read_token),
    ):
        with pytest.raises(HfHubHTTPError, match=r"403 .*this token has no permission to write"):
            write()


def test_expired_tokens_are_told_apart_from_missing_repositories(hub, api):
    hub.create_repo("org/new")
    hub.expire_tokens()
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
        api.model_info("org/new")
    assert type(caught.value) is HfHubHTTPError
    assert api.model_info("org/new", token=False).id == "org/new"


def test_links_to_the_storage_expire(hub, api):
    hub.create_repo("org/new")
    hub.commit("org/new", {"a.bin": b"content"})
    link = huggingface_hub.get_hf_file_metadata(f"{hub.endpoint}/org/new/resolve/main/a.bin").location
    assert link.startswith("http://localhost:") and hub.signature in link
    session = huggingface_hub.get_session()
    assert session.get(link, headers={"Range": "bytes=2-4"}).content == b"nte"
    assert session.get(link, headers={"Authorization": "Bearer x"}).status_code == 400
    hub.expire_links()
    assert session.get(link).status_code == 403


# Libraries that are told of the stand-in by HF_ENDPOINT only.

LOAD = """
import sys
import torch
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer
from tiny_models import save_decoder, save_encoder
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, api = sys.argv[1], HfApi()
revisions = {}
for name, save in {"decoder": save_decoder, "encoder": save_encoder}.items():
    save(f"{folder}/{name}", seed=1)
    api.create_repo(f"org/{name}")
    revisions[name] = api.upload_folder(repo_id=f"org/{name}", folder_path=f"{folder}/{name}").oid
    # The head of main is not what is asked for below.
    api.upload_file(repo_id=f"org/{name}", path_or_fileobj=b"{}", path_in_repo="config.json")
model = AutoModelForCausalLM.from_pretrained("org/decoder", revision=revisions["decoder"])
written = AutoModelForCausalLM.from_pretrained(f"{folder}/decoder").state_dict()
assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())
assert AutoTokenizer.from_pretrained("org/decoder", revision=revisions["decoder"])("a b")["input_ids"]
encoder = SentenceTransformer("org/encoder", revision=revisions["encoder"], device="cpu")
assert (encoder.encode("a b") == SentenceTransformer(f"{folder}/encoder", device="cpu").encode("a b")).all()
print("loaded")
"""


def test_transformers_and_sentence_transformers_load_a_pinned_revision(hub, tmp_path):
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    flags = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **settings, **flags}, capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("loaded\n"), done.stderr
    assert not [request for request in hub.requests if request.route == "unknown"]
