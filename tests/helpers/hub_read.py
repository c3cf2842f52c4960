"""What the Hub stand-in answers to readers: information, lists, trees, files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode

from hub_card import card_metadata
from hub_http import Answer, Call, json_answer, ranged
from hub_repos import Blob, Commit, HubError, Repo, tree_id

if TYPE_CHECKING:
    from hub_server import HubServer


def whoami(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Who owns the token and what it may do."""
    role = "write" if call.token == hub.token else "read"
    orgs = sorted({found.id.split("/")[0] for found in hub.all_repos()} - {hub.user})
    return json_answer(
        {
            "type": "user", "id": "0", "name": hub.user, "fullname": hub.user, "isPro": False, "periodEnd": None,
            "orgs": [{"type": "org", "name": name, "fullname": name, "roleInOrg": "write"} for name in orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}},
        }
    )  # fmt: skip


def auth_check(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Nothing more to say: access was checked on the way here."""
    return json_answer({})


def list_repos(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Repositories of one type that the caller may know of, by author and part of the name."""
    author, search = call.parameter("author"), call.parameter("search").lower()
    found = [
        found
        for found in hub.all_repos()
        if found.type == call.arg("type").removesuffix("s")
        and (not author or found.id.split("/")[0] == author)
        and search in found.id.lower()
        and (call.token or not found.private)
    ]
    return paged(hub, call, [describe(found, found.branches["main"]) for found in found])


def model_info(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """A repository at a revision, with its files; of models and datasets alike."""
    commit = repo.find(call.arg("revision") or "main")
    siblings = [_sibling(path, blob, call.is_set("blobs")) for path, blob in commit.files.items()]
    return json_answer({**describe(repo, commit), "siblings": siblings})


def describe(repo: Repo, commit: Commit) -> dict[str, Any]:
    """What `ModelInfo` and `DatasetInfo` are made from, without the files."""
    card = commit.files.get("README.md")
    metadata = card_metadata(card.content.decode(errors="replace")) if card else {}
    names = metadata.get("base_model") or []
    bases = [names] if isinstance(names, str) else list(names)
    tags = [*(metadata.get("tags") or []), *(f"base_model:{name}" for name in bases)]
    if relation := metadata.get("base_model_relation"):
        tags += [f"base_model:{relation}:{name}" for name in bases]
    return {
        "_id": repo.id, "id": repo.id, "author": repo.id.split("/")[0], "sha": commit.oid, "private": repo.private,
        "gated": "manual" if repo.gated else False, "disabled": False, "lastModified": commit.date,
        "createdAt": list(commit.history())[-1].date, "downloads": 0, "likes": 0, "tags": tags, "cardData": metadata,
        **{key: metadata[key] for key in ("library_name", "pipeline_tag") if key in metadata},
    }  # fmt: skip


def _sibling(path: str, blob: Blob, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": path}
    lfs = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    entry = {"rfilename": path, "size": len(blob.content), "blobId": blob.oid}
    return {**entry, "lfs": lfs} if blob.is_lfs else entry


def tree(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Files and folders below a path, page by page."""
    commit = repo.find(call.arg("revision"))
    folder = call.arg("path").strip("/")
    entries = _entries(commit, f"{folder}/" if folder else "")
    if folder and not entries:
        raise HubError(404, f"{folder} does not exist on {call.arg('revision')!r}", "EntryNotFound", commit.oid)
    if not call.is_set("recursive"):
        depth = folder.count("/") + 1 if folder else 0
        entries = [entry for entry in entries if entry["path"].count("/") == depth]
    return paged(hub, call, entries)


def _entries(commit: Commit, prefix: str) -> list[dict[str, Any]]:
    """Every file and folder below `prefix`, by path."""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in commit.files.items():
        if not path.startswith(prefix):
            continue
        entries[path] = _file_entry(path, blob)
        parts = path.split("/")
        for depth in range(prefix.count("/") + 1, len(parts)):
            folder = "/".join(parts[:depth])
            entries[folder] = entries.get(folder) or _folder_entry(folder, commit)
    return [entries[path] for path in sorted(entries)]


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.oid, "size": len(blob.content), "path": path}
    lfs = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return {**entry, "lfs": lfs} if blob.is_lfs else entry


def _folder_entry(path: str, commit: Commit) -> dict[str, Any]:
    inside = {name[len(path) + 1 :]: blob for name, blob in commit.files.items() if name.startswith(f"{path}/")}
    return {"type": "directory", "oid": tree_id(inside), "size": 0, "path": path}


def paths_info(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """The entries of the paths that exist; others are left out without a word, as the Hub does."""
    commit = repo.find(call.arg("revision"))
    known = {entry["path"]: entry for entry in _entries(commit, "")}
    is_json = call.headers.get("Content-Type", "").startswith("application/json")
    paths = call.json()["paths"] if is_json else parse_qs(call.body.decode()).get("paths", [])
    return json_answer([known[path] for path in (path.strip("/") for path in paths) if path in known])


def refs(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Branches and tags."""

    def entries(kind: str, named: dict[str, Commit]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": at.oid} for name, at in named.items()]

    answer = {"branches": entries("heads", repo.branches), "tags": entries("tags", repo.tags), "converts": []}
    return json_answer({**answer, "pullRequests": []} if call.is_set("include_prs") else answer)


def commits(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """History of a revision, newest first."""
    entries = [
        {"id": at.oid, "title": at.message, "message": at.description, "date": at.date, "authors": [{"user": hub.user}]}
        for at in repo.find(call.arg("revision")).history()
    ]
    return paged(hub, call, entries)


def paged(hub: "HubServer", call: Call, items: Sequence[Any]) -> Answer:
    """One page of `items`; the header Link says where the next is."""
    start = int(call.parameter("cursor", "0"))
    stop = start + min(hub.page_size, int(call.parameter("limit", "1000")))
    headers: dict[str, str] = {}
    if stop < len(items):
        query = urlencode({**call.query, "cursor": [str(stop)]}, doseq=True)
        headers["Link"] = f'<{hub.endpoint}{call.path}?{query}>; rel="next"'
    return json_answer(items[start:stop], headers=headers)


def resolve(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """A file: its content, or for an LFS file the way to it on the storage host."""
    commit = repo.find(call.arg("revision"))
    path = call.arg("path")
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", commit.oid)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"'}
    if not blob.is_lfs:
        return ranged(call, blob.content, headers)
    # Another host name than the endpoint's: the client takes a redirect on the same host as part of the Hub.
    location = hub.signed(f"/lfs/{repo.type}s/{repo.id}/{blob.sha256}/{quote(path)}")
    headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content)), "Location": location}
    return Answer(302, b"", headers)
