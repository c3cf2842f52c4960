"""Trying again what may pass: bounded, with growing, random pauses, so that many clients do not come back at once."""

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tasks.errors import TransientStoreError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0
# A server that asks for more is not waited for: the night's own retry, or the next night, is the better place.
_LONGEST_ASKED_PAUSE_SECONDS = 60.0


def with_retries(call: Callable[[], Result], what: str, attempts: int = ATTEMPTS) -> Result:
    """Call until it does not fail with a fault that may pass.

    Attempts that a client made by itself (`TransientStoreError.attempts`) count, so calls may be nested.

    Args:
        call: Must be safe to repeat, also when an earlier attempt was carried out and only its answer was lost.
        what: What is done, for messages, e.g. `reading https://hub/api/models/org/name`.
        attempts: How often at most.

    Raises:
        TransientStoreError: it failed every time; the message says how often and for how long.
        ValueError: `attempts` is less than 1.
        Exception: whatever else `call` raises, at once.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, found {attempts}")
    started, made = time.monotonic(), 0
    while True:
        try:
            return call()
        except TransientStoreError as error:
            made += error.attempts
            pause = compute_pause(made, error.retry_after)
            if made >= attempts or pause is None:
                seconds = time.monotonic() - started
                raise _given_up(error, what, made, seconds, is_asked=pause is None) from error
            logger.warning("%s failed (attempt %d of %d): %s; again in %.1f s", what, made, attempts, error, pause)
            time.sleep(pause)


def compute_pause(made: int, retry_after: float | None) -> float | None:
    """Seconds to wait before the next attempt.

    Args:
        made: Attempts so far, at least 1.
        retry_after: What the server asked for; it is honoured, and a little is added.

    Returns:
        None if the server asked for more than anyone will wait.
    """
    if retry_after is not None:
        asked_too_much = retry_after > _LONGEST_ASKED_PAUSE_SECONDS
        return None if asked_too_much else retry_after + random.uniform(0, _FIRST_PAUSE_SECONDS)
    ceiling = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**made)
    return random.uniform(ceiling / 2, ceiling)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, whether it holds a number or a date; None if it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is in UTC.
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    # Not a number, or further away than any clock: nothing that can be honoured.
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


def _given_up(error: TransientStoreError, what: str, made: int, seconds: float, is_asked: bool) -> TransientStoreError:
    # Most errors begin with their place, and so do most descriptions end with it: once is enough.
    place, _, rest = str(error).partition(": ")
    reason = rest if rest and what.endswith(place) else str(error)
    advice = f"the server asks to be left alone for {error.retry_after:.0f} s" if is_asked else "try again later"
    reason = reason.removesuffix("; try again later")
    times = "once" if made == 1 else f"{made} times in {seconds:.0f} s"
    message = f"{what} failed {times}, the last time with: {reason}; {advice}"
    return TransientStoreError(message, error.retry_after, attempts=made)
