"""Who we are on S3 and on the Hub.

Without more words it is what the environment says: boto3 and huggingface_hub find credentials as they do everywhere
else (variables, profiles, roles, `hf auth login`). A flow that was given named Prefect blocks sets them here for its
own run (`use_access`). Nothing of this is ever part of a recipe, a record, a log line or a message.
"""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

KMS_KEY_VARIABLE = "COCKTAIL_S3_KMS_KEY_ID"
REQUESTER_PAYS_VARIABLE = "COCKTAIL_S3_REQUESTER_PAYS"

# Queries of URLs hold signatures; what stands before an @ in them is a password; tokens of the Hub begin with hf_, the
# ids of AWS's keys with AKIA or ASIA.
_SECRETS = (
    (re.compile(r"(?<=://)[^\s/@'\"]+@"), ""),
    (re.compile(r"(\w+://[^\s?'\"<>]*)\?[^\s'\"<>]*"), r"\1"),
    (re.compile(r"(?i)\b(bearer)\s+[^\s'\"\\]+"), r"\1 ..."),
    (re.compile(r"\bhf_\w{8,}"), "hf_..."),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1..."),
)


@dataclass(frozen=True, slots=True)
class S3Access:
    """How S3 is reached. What is None is found by boto3 itself."""

    endpoint_url: str | None = None
    """Of a service that speaks S3, e.g. `https://minio.example:9000`; None: AWS_ENDPOINT_URL_S3, else AWS."""
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    kms_key_id: str | None = None
    """Key that objects are encrypted with (SSE-KMS); None: as the bucket is set."""
    requester_pays: bool = False
    """Whether we pay for reading from buckets that ask it of the reader."""


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How the Hub is reached."""

    token: str | None = field(default=None, repr=False)
    """None: HF_TOKEN, or what `hf auth login` left; without either, only what is public can be read."""
    endpoint: str | None = None
    """None: HF_ENDPOINT, else the public Hub."""


_s3: ContextVar[S3Access | None] = ContextVar("s3_access", default=None)
_hub: ContextVar[HubAccess | None] = ContextVar("hub_access", default=None)


def s3_access() -> S3Access:
    """What this run was given, else what the environment says of things that boto3 has no variable for."""
    given = _s3.get()
    if given is not None:
        return given
    pays = os.environ.get(REQUESTER_PAYS_VARIABLE, "").lower() in ("1", "true", "yes")
    return S3Access(kms_key_id=os.environ.get(KMS_KEY_VARIABLE) or None, requester_pays=pays)


def hub_access() -> HubAccess:
    """What this run was given, else what the environment says now (the library itself reads it once, at import)."""
    return _hub.get() or HubAccess(endpoint=os.environ.get("HF_ENDPOINT") or None)


@contextmanager
def use_access(s3: S3Access | None = None, hub: HubAccess | None = None) -> Generator[None]:
    """Who we are within the block, also in tasks and threads that are given its context; None changes nothing."""
    s3_token = _s3.set(s3 if s3 is not None else _s3.get())
    hub_token = _hub.set(hub if hub is not None else _hub.get())
    try:
        yield
    finally:
        _s3.reset(s3_token)
        _hub.reset(hub_token)


def redacted(text: str) -> str:
    """A text of a client or a server as it may be shown: without tokens, key ids, passwords and signed URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def redact_causes(error: BaseException) -> None:
    """Take the same out of an error and of all that led to it: whoever shows its traceback shows those too."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        cause.args = tuple(redacted(each) if isinstance(each, str) else each for each in cause.args)
        waiting += [cause.__cause__, cause.__context__]
