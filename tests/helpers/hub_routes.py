"""The routes of the Hub stand-in."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

import hub_read as read
import hub_write as write
from hub_http import Answer

_REPO = r"(?P<type>models|datasets)/(?P<repo>[^/]+/[^/]+)"
_WEB = r"/(?:(?P<type>datasets)/)?(?P<repo>[^/]+/[^/]+)"
_AT = "(?P<revision>[^/]+)"


class Route(NamedTuple):
    """Method and path, the name that tests use, who may call it (see `HubServer`), and what answers."""

    name: str
    methods: str
    path: str
    access: str
    answer: Callable[..., Answer]


ROUTES = [
    Route("whoami", "GET", "/api/whoami-v2", "user", read.whoami),
    Route("create_repo", "POST", "/api/repos/create", "writer", write.create_repo),
    Route("delete_repo", "DELETE", "/api/repos/delete", "writer", write.delete_repo),
    Route("validate_yaml", "POST", "/api/validate-yaml", "anyone", write.validate_yaml),
    Route("list_models", "GET", "/api/(?P<type>models|datasets)", "anyone", read.list_repos),
    Route("model_info", "GET", f"/api/{_REPO}(?:/revision/{_AT})?", "read", read.model_info),
    Route("auth_check", "GET", f"/api/{_REPO}/auth-check", "files", read.auth_check),
    Route("auth_check", "GET", f"/api/{_REPO}/auth-check/write", "write", read.auth_check),
    Route("tree", "GET", f"/api/{_REPO}/tree/{_AT}(?:/(?P<path>.+))?", "files", read.tree),
    Route("paths_info", "POST", f"/api/{_REPO}/paths-info/{_AT}", "files", read.paths_info),
    Route("refs", "GET", f"/api/{_REPO}/refs", "read", read.refs),
    Route("commits", "GET", f"/api/{_REPO}/commits/{_AT}", "read", read.commits),
    Route("preupload", "POST", f"/api/{_REPO}/preupload/{_AT}", "write", write.preupload),
    Route("commit", "POST", f"/api/{_REPO}/commit/{_AT}", "write", write.commit),
    Route("branch", "POST DELETE", f"/api/{_REPO}/branch/(?P<name>[^/]+)", "write", write.branch),
    Route("tag", "POST DELETE", f"/api/{_REPO}/tag/(?P<name>[^/]+)", "write", write.tag),
    Route("resolve_head", "HEAD", f"{_WEB}/resolve/{_AT}/(?P<path>.+)", "files", read.resolve),
    Route("resolve", "GET", f"{_WEB}/resolve/{_AT}/(?P<path>.+)", "files", read.resolve),
    Route("lfs_batch", "POST", rf"{_WEB}\.git/info/lfs/objects/batch", "write", write.lfs_batch),
    Route("lfs_verify", "POST", rf"{_WEB}\.git/info/lfs/objects/verify", "write", write.lfs_verify),
    Route("lfs_get", "GET", f"/lfs/{_REPO}/(?P<oid>[0-9a-f]{{64}})/(?P<path>.+)", "signed", write.lfs_get),
    Route("lfs_put", "PUT", f"/lfs/{_REPO}/(?P<oid>[0-9a-f]{{64}})", "signed", write.lfs_put),
    Route("lfs_put", "PUT", "/lfs-parts/(?P<number>[0-9]+)/(?P<part>[0-9]+)", "signed", write.lfs_put),
    Route("lfs_complete", "POST", "/lfs-parts/(?P<number>[0-9]+)", "signed", write.lfs_complete),
]

_COMPILED = [(route, re.compile(route.path)) for route in ROUTES]
NAMES = frozenset(route.name for route in ROUTES)


def find_route(method: str, path: str) -> tuple[Route | None, Mapping[str, str | None]]:
    """The route of a request and the parts of its path that the route names, without quoting."""
    for route, pattern in _COMPILED:
        match = pattern.fullmatch(path) if method in route.methods.split() else None
        if match is not None:
            return route, {name: value and unquote(value) for name, value in match.groupdict().items()}
    return None, {}
