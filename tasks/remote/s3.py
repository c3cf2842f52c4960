"""S3's client: how it is made, and when it tries again."""

import functools
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from tasks.errors import StoreError, TransientStoreError
from tasks.remote.access import S3Access, redact_causes, s3_access
from tasks.remote.retries import ATTEMPTS, compute_pause
from tasks.remote.s3_faults import CONFLICT, DAMAGED, MISSING, error_code, translate, words

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
_CONNECT_SECONDS = 10
_READ_SECONDS = 60


class S3Place(NamedTuple):
    """A bucket and the beginning of its keys, without a slash at the end."""

    bucket: str
    prefix: str

    def key(self, path: str) -> str:
        """The key of a path under the prefix."""
        return "/".join(part for part in (self.prefix, path) if part)

    def uri(self, path: str = "") -> str:
        """`s3://bucket/prefix/path`."""
        return "s3://" + "/".join(part for part in (self.bucket, self.prefix, path) if part)


def parse_s3(uri: str) -> S3Place:
    """Bucket and prefix of `s3://bucket/prefix`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Place(bucket, prefix.strip("/"))


def s3_client(access: S3Access | None = None) -> Any:
    """A client, safe to share between threads; `access` as this run was given it, or as the environment says.

    Its requests are tried again by themselves if they got no answer or one that may pass. What is left to the caller:
    a body that breaks off or is damaged while it is read, or that S3 refused as damaged (`is_damaged`).

    Raises:
        StoreError: the profile, the region, the endpoint's URL or the credentials that are set cannot be used.
    """
    access = access or s3_access()
    if (access.access_key_id is None) != (access.secret_access_key is None):
        # boto3 would sign with nothing, and S3 would say that the signature is wrong.
        raise StoreError("S3 cannot be used as it is set up: of the pair of access key id and secret only one is given")
    # boto3 reads the environment when a client is made, so one that was made under other variables is not used again.
    variables = frozenset((key, value) for key, value in os.environ.items() if key.startswith("AWS_"))
    try:
        return _make_client(access, variables)
    except (BotoCoreError, ValueError) as error:
        redact_causes(error)
        raise StoreError(
            f"S3 cannot be used as it is set up: {words(error)}; look at AWS_PROFILE, AWS_ENDPOINT_URL_S3, "
            "AWS_DEFAULT_REGION and the credentials, or at the block that holds them"
        ) from error


@contextmanager
def s3_errors(where: str) -> Generator[None]:
    """Say what went wrong at `where`, in the project's errors.

    A condition of a conditional write that did not hold (`is_conflict`) is let through as it is: only the caller
    knows what it means.

    Raises:
        NotFoundError: no such bucket or object.
        TransientStoreError: the network, or a service that is overloaded or broken for now, after all attempts.
        StoreError: everything that will not pass by itself: access, credentials, names.
    """
    try:
        yield
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        if isinstance(error, ClientError) and is_conflict(error):
            raise
        redact_causes(error)
        raise translate(error, where) from error


def is_conflict(error: ClientError) -> bool:
    """Whether a conditional write was refused because its condition does not hold."""
    return error_code(error) in CONFLICT


def is_missing(error: ClientError) -> bool:
    """Whether there is no such object, bucket or upload."""
    return error_code(error) in MISSING


def is_damaged(error: ClientError) -> bool:
    """Whether S3 refused a body because it does not have the checksum that came with it."""
    return error_code(error) in DAMAGED


@functools.lru_cache(maxsize=8)
def _make_client(access: S3Access, variables: frozenset[tuple[str, str]]) -> Any:
    config = Config(
        # Not botocore's own retries but `_wait_before_retry`: it does as Retry-After says, does not repeat what a
        # refused certificate would refuse again, and says in the log what it waits for.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=MAX_CONNECTIONS,
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        tcp_keepalive=True,
    )
    session = Session(
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        aws_session_token=access.session_token,
        region_name=access.region,
    )
    client: Any = session.client("s3", endpoint_url=access.endpoint_url, config=config)
    client.meta.events.register("needs-retry.s3", _wait_before_retry)
    return client


def _wait_before_retry(
    response: Any, operation: Any, attempts: int, caught_exception: Exception | None, **_: Any
) -> float | None:
    """Answer botocore's question after each request: seconds until the next attempt, None for no more of them."""
    error = caught_exception
    if error is not None:
        # There is no answer that would hold their number, so it goes with the error.
        error.attempts = attempts  # pyright: ignore[reportAttributeAccessIssue]
    elif response[1]["ResponseMetadata"]["HTTPStatusCode"] >= 300:
        error = ClientError(response[1], operation.name)
    if attempts >= ATTEMPTS or not isinstance(error, BotoCoreError | ClientError):
        return None
    if isinstance(error, ClientError) and is_damaged(error):
        return None
    fault = translate(error, operation.name)
    if not isinstance(fault, TransientStoreError):
        return None
    pause = compute_pause(attempts, fault.retry_after)
    if pause is not None:
        logger.warning("S3 request failed (attempt %d of %d): %s; again in %.1f s", attempts, ATTEMPTS, fault, pause)
    return pause
