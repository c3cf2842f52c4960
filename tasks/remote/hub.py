"""The Hub's client, and what its faults mean in the project's errors."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The base of all faults of the HTTP library below the client, which is httpx or httpx2 by the client's version.
from huggingface_hub.errors import HTTPError as HttpLibraryError  # pyright: ignore[reportPrivateImportUsage]
from huggingface_hub.utils import disable_progress_bars

from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.remote.access import HubAccess, hub_access, redact_causes, redacted
from tasks.remote.retries import parse_retry_after, with_retries

Result = TypeVar("Result")

_FAULTS = (
    HttpLibraryError,
    EntryNotFoundError,
    FileMetadataError,
    HFValidationError,
    LocalTokenNotFoundError,
    ConnectionError,
    TimeoutError,
)

DEFAULT_REVISION = "main"
ANSWER_SECONDS = 60.0
"""For calls of the client that take a limit of their own, such as `model_info`: left out, they wait for ever."""
# For all others: to connect, to read, to write, and for a free connection. A commit of many files may be answered late.
_LIMITS_SECONDS = (10.0, 300.0, 300.0, 300.0)
# All of them print whole URLs: the client when it tries again, the HTTP library below it at every request.
_CHATTY_LOGGERS = ("huggingface_hub.utils._http", "httpx", "httpx2")
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOKEN_ADVICE = "set HF_TOKEN, or run `hf auth login`"


class _Redaction(logging.Filter):
    """Takes signed URLs and tokens out of what libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is always logged."""
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


_REDACTION = _Redaction()


def hub_api(access: HubAccess | None = None) -> HfApi:
    """A client; `access` as this run was given it, or as the environment says.

    Raises:
        StoreError: the endpoint that is set is no URL.
    """
    access = access or hub_access()
    if access.endpoint is not None and not _is_url(access.endpoint):
        raise StoreError(
            f"the Hub cannot be used as it is set up: {redacted(access.endpoint)!r} is no URL; look at HF_ENDPOINT, or "
            "at the block that holds it"
        )
    session: Any = get_session()
    if session.timeout.read is None:
        # By itself the client waits for ever for a server that took the request and never answers.
        session.timeout = _LIMITS_SECONDS
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).addFilter(_REDACTION)
    # Its bars would garble our own, and the logs of a server; what is sent and fetched is told by us.
    disable_progress_bars()
    return HfApi(endpoint=access.endpoint, token=access.token, library_name="lm-cocktail-flows")


def call_hub(call: Callable[[], Result], where: str) -> Result:
    """Make a call that is safe to repeat: faults that may pass are tried again, all are in the project's errors.

    Args:
        call: One call of the client.
        where: What is asked for, for messages, e.g. `https://huggingface.co/org/name`.

    Raises:
        StoreError: and its kinds, as `hub_errors`.
    """

    def guarded() -> Result:
        with hub_errors(where):
            return call()

    return with_retries(guarded, where)


@contextmanager
def hub_errors(where: str) -> Generator[None]:
    """Say what went wrong at `where`, in the project's errors.

    Raises:
        NotFoundError: no such repository (or none that this token may see), revision or file.
        TransientStoreError: the network, or a server that is overloaded or broken for now.
        StoreError: everything that will not pass by itself: access, tokens, names.
    """
    try:
        yield
    except _FAULTS as error:
        redact_causes(error)
        raise _translate(error, where) from error
    except OSError as error:
        # The client knows no better class for a download of the wrong size. All else is this machine's own disk.
        if "Consistency check failed" not in str(error):
            raise
        raise TransientStoreError(f"{where}: the download broke off: {_words(error)}; try again later") from error


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client or of ours; None if there was no answer."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            # The client also raises it without an answer, and then there is no status.
            response: Any = getattr(error, "response", None)
            return response.status_code if response is not None else None
        error = error.__cause__
    return None


def _is_url(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        # A port that is no number shows only when it is asked for.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _translate(error: BaseException, where: str) -> StoreError:
    match error:
        case GatedRepoError() | RepositoryNotFoundError() | RevisionNotFoundError():
            return _of_repository(error, where)
        case LocalEntryNotFoundError():
            return _of_cache(error, where)
        case EntryNotFoundError():
            return NotFoundError(f"{where}: there is no such file; it may have been moved or deleted")
        case OfflineModeIsEnabled():
            return StoreError(f"{where}: HF_HUB_OFFLINE is set, so the Hub is not asked; unset it")
        case LocalTokenNotFoundError():
            return StoreError(f"{where}: a token is needed and there is none; {_TOKEN_ADVICE}")
        case FileMetadataError():
            return StoreError(
                f"{where}: what answers does not speak as the Hub does ({_words(error)}); look at HF_ENDPOINT and at "
                "proxies"
            )
        case HFValidationError():
            return StoreError(f"{where}: {_words(error)}")
        case HfHubHTTPError():
            return _of_status(error, where)
        case _:
            return _of_network(error, where)


def _of_network(error: BaseException, where: str) -> StoreError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{where}: the Hub's certificate cannot be trusted ({_words(error)}); name the file of the authority that "
            "signed it in SSL_CERT_FILE"
        )
    return TransientStoreError(f"{where}: the Hub cannot be reached: {_words(error)}; try again later")


def _of_cache(error: LocalEntryNotFoundError, where: str) -> StoreError:
    """For a download that neither the Hub nor the client's own cache could answer: why the Hub could not."""
    if isinstance(error.__cause__, _FAULTS):
        return _translate(error.__cause__, where)
    return StoreError(f"{where}: it is not in the cache, and the Hub is not asked; unset HF_HUB_OFFLINE")


def _of_repository(error: HfHubHTTPError, where: str) -> StoreError:
    # A gated repository is also a repository that was not found, so it is asked first.
    if isinstance(error, GatedRepoError):
        return StoreError(
            f"{where}: this repository is gated and the token at hand has no access; ask for access on its page, then "
            f"{_TOKEN_ADVICE}"
        )
    if isinstance(error, RevisionNotFoundError):
        return NotFoundError(
            f"{where}: there is no such revision; the branch or tag may have been moved or deleted: look at the "
            "repository's page for those there are"
        )
    return NotFoundError(
        f"{where}: there is no such repository, or it is private and the token at hand may not see it; look at the "
        f"name's spelling, or {_TOKEN_ADVICE}"
    )


def _of_status(error: HfHubHTTPError, where: str) -> StoreError:
    status, said = status_of(error), _words(error)
    if status is None or status in _PASSING_STATUS:
        answered = "" if status is None else f"the Hub answered {status}: "
        return TransientStoreError(f"{where}: {answered}{said}; try again later", _retry_after(error))
    if isinstance(error, DisabledRepoError):
        return StoreError(f"{where}: this repository was disabled ({status}: {said}); use another")
    if status == 401:
        return StoreError(f"{where}: the Hub does not know the token, or it has expired (401: {said}); {_TOKEN_ADVICE}")
    if status == 403:
        return StoreError(f"{where}: the token may not do this (403: {said}); use one with write access there")
    if status == 404:
        return NotFoundError(f"{where}: there is no such thing on the Hub (404: {said}); look at the name's spelling")
    if status in (409, 412):
        return StoreError(
            f"{where}: it was changed by another meanwhile ({status}: {said}); look at it, then run again"
        )
    return StoreError(f"{where}: the Hub answered {status}: {said}")


def _retry_after(error: HfHubHTTPError) -> float | None:
    response: Any = getattr(error, "response", None)
    return None if response is None else parse_retry_after(response.headers.get("Retry-After"))


def _words(error: BaseException) -> str:
    """What the server said, else the first line of what the client said: the rest of that is advice of its own."""
    message: str = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return redacted(message.strip().partition("\n")[0])
