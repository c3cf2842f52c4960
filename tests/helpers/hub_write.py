"""What the Hub stand-in does for writers: repositories, commits, branches, tags, uploads of LFS objects."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub_card import validate_card
from hub_http import Answer, Call, json_answer, ranged
from hub_repos import Blob, HubError, Repo

if TYPE_CHECKING:
    from hub_server import HubServer


def validate_yaml(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Errors and warnings about a model card's metadata; 400 if there are errors."""
    errors, warnings = validate_card(call.json()["content"])
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return json_answer(answer, 400 if errors else 200)


def create_repo(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Make a repository, unless there is one of this name."""
    repo_id, repo_type, wanted = _named(hub, call)
    url = f"{hub.endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"
    answer = {"url": url, "name": repo_id, "id": repo_id}
    if hub.has_repo(repo_id, repo_type):
        # The client reads the url of this answer, too, when the caller said exist_ok.
        return json_answer({**answer, "error": f"You already created this {repo_type} repo"}, 409)
    private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    hub.create_repo(repo_id, repo_type, private=private)
    return json_answer(answer)


def delete_repo(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Delete a repository with all that it holds."""
    repo_id, repo_type, _ = _named(hub, call)
    if not hub.has_repo(repo_id, repo_type):
        raise HubError(404, "Repository not found", "RepoNotFound")
    hub.delete_repo(repo_id, repo_type)
    return json_answer({})


def _named(hub: "HubServer", call: Call) -> tuple[str, str, dict[str, Any]]:
    wanted = call.json()
    return f"{wanted.get('organization') or hub.user}/{wanted['name']}", wanted.get("type") or "model", wanted


def branch(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Make a branch at its starting point, or delete it."""
    name = call.arg("name")
    if call.method == "DELETE":
        if name == "main":
            raise HubError(400, "The branch main cannot be deleted")
        repo.branch_head(name)
        del repo.branches[name]
        return json_answer({})
    if name in repo.branches:
        raise HubError(409, f"Branch {name} already exists")
    repo.branches[name] = repo.find((call.json() if call.body else {}).get("startingPoint") or "main")
    return json_answer({})


def tag(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Tag a revision, or delete a tag; a tag that exists stays where it is."""
    name = call.arg("name")
    if call.method == "DELETE":
        if repo.tags.pop(name, None) is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return json_answer({})
    commit, new = repo.find(name), call.json()["tag"]
    if new in repo.tags:
        raise HubError(409, f"Tag {new} already exists")
    repo.tags[new] = commit
    return json_answer({})


def preupload(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """For each file, whether it goes as LFS, and what the branch holds under its path now."""
    held = repo.branch_head(call.arg("revision")).files
    files = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if repo.is_lfs(file["path"], file["size"]) else "regular",
            "shouldIgnore": False,
            **({"oid": held[file["path"]].etag} if file["path"] in held else {}),
        }
        for file in call.json()["files"]
    ]
    return json_answer({"files": files})


def commit(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """One commit, from lines of JSON: the header, then what changes."""
    if call.is_set("create_pr"):
        raise HubError(400, "Pull requests are not part of this stand-in")
    try:
        header, *lines = [json.loads(line) for line in call.body.splitlines()]
    except ValueError as error:
        raise HubError(400, f"Body is not lines of JSON: {error}") from None
    if header["key"] != "header" or not header["value"].get("summary"):
        raise HubError(400, "The first line must be the header, with a summary")
    about = header["value"]
    new = repo.commit(
        call.arg("revision"),
        list(_changes(repo, lines)),
        about["summary"],
        about.get("description", ""),
        about.get("parentCommit"),
    )
    url = f"{hub.endpoint}/{'datasets/' if repo.type == 'dataset' else ''}{repo.id}/commit/{new.oid}"
    return json_answer({"success": True, "commitOid": new.oid, "commitUrl": url, "hookOutput": ""})


def _changes(repo: Repo, lines: list[dict[str, Any]]) -> Iterator[tuple[str, Blob | None]]:
    for line in lines:
        key, value = line["key"], line["value"]
        path = value["path"]
        if key == "file":
            yield path, _regular(repo, path, value)
        elif key == "lfsFile":
            content = repo.objects.get(value["oid"])
            if content is None or value.get("size", len(content)) != len(content):
                raise HubError(400, f"{path}: LFS object {value['oid']} of this size was never uploaded")
            yield path, Blob(content, is_lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            yield path if key == "deletedFile" else f"{path.rstrip('/')}/", None
        else:
            raise HubError(400, f"Unknown operation {key!r}")


def _regular(repo: Repo, path: str, value: dict[str, Any]) -> Blob:
    try:
        content = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise HubError(400, f"{path}: content is not base64: {error}") from None
    if repo.is_lfs(path, len(content)):
        raise HubError(400, f"{path}: {len(content)} bytes under this name must be uploaded as LFS")
    return Blob(content, is_lfs=False)


@dataclass
class MultipartUpload:
    """An LFS object that arrives in parts."""

    repo: Repo
    oid: str
    parts: dict[int, bytes] = field(default_factory=dict)


def lfs_batch(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Where to put each object; no actions for one that is here already."""
    objects = [_batch_object(hub, repo, wanted["oid"], wanted["size"]) for wanted in call.json()["objects"]]
    multipart = any("chunk_size" in found.get("actions", {}).get("upload", {}).get("header", {}) for found in objects)
    return json_answer({"transfer": "multipart" if multipart else "basic", "objects": objects})


def _batch_object(hub: "HubServer", repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if oid in repo.objects:
        return {"oid": oid, "size": size}
    prefix = "datasets/" if repo.type == "dataset" else ""
    verify = {"href": f"{hub.endpoint}/{prefix}{repo.id}.git/info/lfs/objects/verify", "header": {}}
    if size <= hub.multipart_size:
        upload: dict[str, Any] = {"href": hub.signed(f"/lfs/{repo.type}s/{repo.id}/{oid}"), "header": {}}
    else:
        number = hub.begin_multipart(MultipartUpload(repo, oid))
        parts = -(-size // hub.multipart_size)
        urls = {f"{part:05}": hub.signed(f"/lfs-parts/{number}/{part}") for part in range(1, parts + 1)}
        header = {"chunk_size": str(hub.multipart_size), **urls}
        upload = {"href": hub.signed(f"/lfs-parts/{number}", hub.endpoint), "header": header}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def lfs_verify(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Whether an object arrived whole."""
    wanted = call.json()
    if len(repo.objects.get(wanted["oid"], b"")) != wanted["size"]:
        raise HubError(404, f"LFS object {wanted['oid']} of {wanted['size']} bytes is not here")
    return json_answer({})


def lfs_put(hub: "HubServer", call: Call, repo: Repo | None) -> Answer:
    """Keep an object, or a part of one; bytes that do not match the object's sha256 are refused."""
    if repo is None:
        part = int(call.arg("part"))
        hub.multipart(call.arg("number")).parts[part] = call.body
        return Answer(headers={"ETag": _etag(call.body)})
    _store(repo, call.arg("oid"), call.body)
    return Answer(headers={"ETag": _etag(call.body)})


def lfs_complete(hub: "HubServer", call: Call, repo: None) -> Answer:
    """Put the parts of an object together."""
    upload = hub.multipart(call.arg("number"))
    named = {part["partNumber"]: part["etag"] for part in call.json()["parts"]}
    if named != {number: _etag(content) for number, content in upload.parts.items()}:
        raise HubError(400, "InvalidPart: the parts named are not the parts that arrived")
    _store(upload.repo, upload.oid, b"".join(upload.parts[number] for number in sorted(named)))
    return json_answer({})


def lfs_get(hub: "HubServer", call: Call, repo: Repo) -> Answer:
    """Content of an object."""
    content = repo.objects.get(call.arg("oid"))
    if content is None:
        raise HubError(404, "NoSuchKey")
    return ranged(call, content, {"ETag": _etag(content)})


def _store(repo: Repo, oid: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubError(400, f"BadDigest: {len(content)} bytes arrived that are not those of sha256 {oid}")
    repo.objects[oid] = content


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
