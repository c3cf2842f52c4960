"""Faults of the Hub's client when it writes, in the project's errors: what `tasks.remote.hub` knows of all its calls,
and lost races, refused uploads and the words of Xet, the storage that large files go to."""

import json
from collections.abc import Generator
from contextlib import contextmanager

from tasks.errors import StoreError, TransientStoreError
from tasks.remote.access import redacted
from tasks.remote.hub import hub_errors, status_of

# 412: the branch is not where the caller saw it. 409: it exists already, or another commit is being made.
_MOVED_MEANWHILE = frozenset({409, 412})


@contextmanager
def repo_errors(where: str, attempts: int = 1) -> Generator[None]:
    """Say what went wrong at `where`.

    Args:
        where: The repository or a file in it, for messages.
        attempts: How often the client tries by itself before it tells us.

    Raises:
        NotFoundError: no such repository, revision or file.
        TransientStoreError: a fault that may pass, or somebody else was first: to be done again from a fresh look.
        StoreError: everything that will not pass by itself.
    """
    try:
        with hub_errors(where), _unwrapped(where):
            yield
    except TransientStoreError as error:
        raise TransientStoreError(str(error), error.retry_after, max(attempts, error.attempts)) from error
    except StoreError as error:
        if status_of(error) in _MOVED_MEANWHILE:
            raise TransientStoreError(str(error)) from error
        raise
    except json.JSONDecodeError as error:
        raise TransientStoreError(f"{where}: the Hub's answer is no JSON: {redacted(str(error))}") from error
    except ValueError as error:
        raise StoreError(f"{where}: {redacted(str(error))}") from error


@contextmanager
def _unwrapped(where: str) -> Generator[None]:
    """The fault behind the client's words for an upload that failed."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        # Xet has tried again by itself; it names the fault in words only.
        raise TransientStoreError(f"{where}: the upload failed: {redacted(str(error))}") from error
    except PermissionError as error:
        if error.filename is not None:
            raise
        raise StoreError(
            f"{where}: the Hub's storage refused the token ({redacted(str(error))}); set HF_TOKEN, or run "
            "`hf auth login`"
        ) from error
