"""How the Hub stand-in serves one request: the fault that a test asked for, who may call, then the route's answer."""

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from hub_faults import Fault, flipped
from hub_http import Answer, Call, Handler, error_answer
from hub_repos import HubError, Repo
from hub_routes import Route, find_route

if TYPE_CHECKING:
    from hub_server import HubServer

_BAD_TOKEN = HubError(401, "Invalid credentials in Authorization header")


def serve(hub: "HubServer", call: Call, handler: Handler) -> None:
    """Answer one request, or fail as a test wants it, and log it first: a client that has its answer finds the line."""
    route, args = find_route(call.method, call.path)
    name, path = route.name if route else "unknown", unquote(call.path)
    fault = hub.take_fault(name, call.method, path)
    kind = fault.kind if fault else ""
    # What is uploaded is damaged on its way in, all else on its way out.
    if name == "lfs_put" and kind in ("truncate", "flip"):
        call, kind = replace(call, body=_damaged(call.body, kind)), ""
    if kind == "delay" and fault:
        hub.stopping.wait(fault.options["seconds"])
    if kind in ("status", "expired") and fault:
        answer = _refusal(fault)
    else:
        answer = Answer(0) if kind == "reset" else _answer(hub, route, replace(call, args=args))
    lost = kind in ("reset", "applied_then_lost")
    hub.log(call.method, name, path, 0 if lost else answer.status)
    if lost:
        handler.reset()
    elif kind == "truncate":
        handler.send(answer, keep=len(answer.body) // 2)
    else:
        handler.send(replace(answer, body=flipped(answer.body)) if kind == "flip" else answer)


def _damaged(body: bytes, kind: str) -> bytes:
    return body[: len(body) // 2] if kind == "truncate" else flipped(body)


def _refusal(fault: Fault) -> Answer:
    if fault.kind == "expired":
        return error_answer(_BAD_TOKEN)
    options = fault.options
    answer = error_answer(HubError(options["status"], options["message"], options["code"]))
    if options["retry_after"] is not None:
        answer.headers["Retry-After"] = str(options["retry_after"])
    return answer


def _answer(hub: "HubServer", route: Route | None, call: Call) -> Answer:
    try:
        with hub.lock:
            if route is None:
                raise HubError(404, f"The Hub stand-in has no route for {call.method} {call.path}")
            return route.answer(hub, call, _admit(hub, route, call))
    except HubError as error:
        return error_answer(error)
    except Exception:
        # A mistake in the stand-in, or a request that no real client sends: `HubServer.stop` raises it.
        hub.bugs.append(traceback.format_exc())
        return error_answer(HubError(500, "The Hub stand-in failed; stopping it shows how"))


def _admit(hub: "HubServer", route: Route, call: Call) -> Repo | None:
    """The repository that a request is about, if its sender may do this with it; errors are those of the Hub."""
    repo_id, repo_type = call.arg("repo"), (call.arg("type") or "model").removesuffix("s")
    repo = hub.repo(repo_id, repo_type) if hub.has_repo(repo_id, repo_type) else None
    if route.access == "signed":
        return _admit_signed(hub, call, repo)
    if call.token is not None and not hub.knows(call.token):
        raise _BAD_TOKEN
    if repo_id and (repo is None or (repo.private and call.token is None)):
        # To a stranger, a private repository looks as one that does not exist.
        raise HubError(404 if call.token else 401, "Repository not found", "RepoNotFound")
    if route.access in ("user", "writer", "write") and call.token is None:
        # The client infers RepoNotFound from any 401 on a repository, but only over https; so it is said here.
        raise HubError(401, "Invalid username or password.", "RepoNotFound" if repo_id else None)
    if route.access in ("writer", "write") and call.token != hub.token:
        raise HubError(403, "Forbidden: this token has no permission to write")
    if route.access == "files" and repo is not None and repo.gated and call.token not in repo.granted:
        message = f"Access to {repo.type} {repo.id} is restricted and you are not in the authorized list"
        raise HubError(403 if call.token else 401, message, "GatedRepo")
    return repo


def _admit_signed(hub: "HubServer", call: Call, repo: Repo | None) -> Repo | None:
    if call.parameter("X-Amz-Signature") != hub.signature:
        raise HubError(403, "AccessDenied: Request has expired")
    if call.token is not None:
        raise HubError(400, "InvalidArgument: Only one auth mechanism allowed; a token came with a signed link")
    if repo is None and call.arg("repo"):
        raise HubError(404, "NoSuchKey")
    return repo
