"""Whether releases can be written to the Hub, found out before any work."""

import secrets
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from tasks.errors import StoreError
from tasks.remote.hub import call_hub, status_of
from tasks.remote.retries import with_retries
from tasks.stores.hub.commits import check_ours
from tasks.stores.hub.repository import MAIN, HubRepo, Refs

# No commit has this id, so a commit that names it as its parent must be refused.
_NO_COMMIT = "0" * 40
# 412 is what the Hub says; a server that finds the request itself wrong has refused it, too.
_REFUSED = frozenset({400, 404, 409, 412, 422})
_PROBE_PREFIX = "probe-"
_WRITE_ADVICE = "use a token with write access there, see https://huggingface.co/settings/tokens"


def check_writable(api: HfApi, repo: HubRepo) -> None:
    """Prove that versions and aliases can be written.

    A repository that is there is asked for write access, and must refuse a commit that names a parent which is not
    its branch's head. For one that is not, the token must be one that may make it; its conditions are tried before the
    first alias is written there.

    Raises:
        StoreError: it cannot be written, holds something else, or ignores conditions; the message says which.
    """
    check_token(api, repo.repo_id.partition("/")[0])
    refs = with_retries(repo.refs, repo.url)
    if refs is None:
        return
    call_hub(lambda: api.auth_check(repo.repo_id, write=True), repo.url)
    check_ours(repo, refs)
    check_conditions(repo)


def check_token(api: HfApi, organisation: str) -> None:
    """Prove that we are somebody who may write in an organisation or in a user's own name.

    Raises:
        StoreError: there is no token, it may only read, or its owner has no part in the organisation.
    """
    where = f"{api.endpoint}/{organisation}"
    user: dict[str, Any] = call_hub(api.whoami, where)
    # Of a fine-grained token ("fineGrained") the answer to the first write tells more than its list of rights.
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise StoreError(f"{where}: the token of {user['name']} may only read; {_WRITE_ADVICE}")
    if organisation.lower() == user["name"].lower():
        return
    roles = {found["name"].lower(): found.get("roleInOrg") for found in user.get("orgs", [])}
    if organisation.lower() not in roles:
        known = ", ".join(sorted(roles)) or "no organisation"
        raise StoreError(
            f"{where}: {user['name']} is no member of {organisation} (but of {known}); {_WRITE_ADVICE}, or release "
            f"to hub://{user['name']}"
        )
    if roles[organisation.lower()] == "read":
        raise StoreError(f"{where}: {user['name']} may only read in {organisation}; ask its owners for write access")


def check_conditions(repo: HubRepo) -> None:
    """Prove, on a branch that is gone afterwards, that a commit which names a wrong parent is refused.

    Raises:
        StoreError: it is not, so nothing would keep two runs from both moving an alias.
    """
    with_retries(lambda: _try_conditions(repo, repo.refs() or Refs({}, {})), repo.url)


def _try_conditions(repo: HubRepo, refs: Refs) -> None:
    if MAIN not in refs.branches:
        return  # Nothing is there that could be written to; whoever tries says so.
    branch = f"{_PROBE_PREFIX}{secrets.token_hex(4)}"
    try:
        repo.create_branch(branch, refs.branches[MAIN])
        is_honoured = _is_refused(repo, branch)
    finally:
        with_retries(lambda: repo.delete_branch(branch), repo.url)
    if not is_honoured:
        raise StoreError(
            f"{repo.url}: a commit that names a wrong parent was made all the same, so of two runs that finish "
            "together both would win; release to a Hub that honours parentCommit"
        )


def _is_refused(repo: HubRepo, branch: str) -> bool:
    """Whether a commit with a parent that is not there was refused for that; other faults are raised."""
    try:
        repo.commit(branch, [CommitOperationAdd("probe", b"probe")], "probe", parent=_NO_COMMIT)
    except StoreError as error:
        if status_of(error) not in _REFUSED:
            raise
        return True
    return False
