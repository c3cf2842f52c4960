"""Trying again: how often, with what pauses, and what is said in the end."""

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tasks.errors import StoreError, TransientStoreError, is_transient
from tasks.remote.retries import compute_pause, parse_retry_after, with_retries

WHAT = "reading https://hub/org/name"


def failing(*outcomes):
    """A call with these outcomes, one after another: errors are raised, all else is returned."""
    left = list(outcomes)

    def call():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call


def test_what_works_is_called_once_and_nobody_sleeps(pauses):
    assert with_retries(failing("done"), WHAT) == "done"
    assert pauses == []


def test_a_fault_that_passes_costs_growing_random_pauses(pauses, caplog):
    caplog.set_level(logging.WARNING)
    busy = [TransientStoreError("busy") for _ in range(4)]
    assert with_retries(failing(*busy, "done"), WHAT) == "done"
    # 0.5 s doubled with each attempt, of which the upper half is drawn from.
    assert [low <= pause <= 2 * low for low, pause in zip([0.5, 1, 2, 4], pauses, strict=True)] == [True] * 4
    assert "reading https://hub/org/name failed (attempt 1 of 5): busy; again in" in caplog.text


def test_pauses_do_not_grow_for_ever():
    assert 10 <= compute_pause(50, None) <= 20


def test_a_fault_that_stays_says_how_often_and_how_long_and_what_to_do(pauses):
    busy = [TransientStoreError("https://hub/org/name: 503 busy; try again later") for _ in range(5)]
    with pytest.raises(TransientStoreError) as caught:
        with_retries(failing(*busy), WHAT)
    # Nothing slept, so no time has passed. The place, and what to do, are said once.
    expected = "reading https://hub/org/name failed 5 times in 0 s, the last time with: 503 busy; try again later"
    assert str(caught.value) == expected
    assert (caught.value.attempts, len(pauses)) == (5, 4)
    assert caught.value.__cause__ is busy[-1]
    assert is_transient(caught.value)


def test_the_place_is_kept_where_the_description_does_not_end_with_it(pauses):
    with pytest.raises(TransientStoreError, match=r"^resolving models failed once, the last time with: s3://a: broken"):
        with_retries(failing(TransientStoreError("s3://a: broken")), "resolving models", attempts=1)


def test_anything_else_is_raised_at_once(pauses):
    error = StoreError("no access")
    with pytest.raises(StoreError) as caught:
        with_retries(failing(error), WHAT)
    assert caught.value is error
    assert (pauses, is_transient(error)) == ([], False)


def test_attempts_that_a_client_made_itself_count(pauses):
    calls = failing(TransientStoreError("first", attempts=3), TransientStoreError("second", attempts=2))
    with pytest.raises(TransientStoreError, match="failed 5 times in 0 s, the last time with: second"):
        with_retries(calls, WHAT)
    assert len(pauses) == 1


def test_the_pause_that_a_server_asks_for_is_kept(pauses):
    assert with_retries(failing(TransientStoreError("busy", retry_after=7), "done"), WHAT) == "done"
    assert 7 <= pauses[0] <= 7.5


def test_a_server_that_asks_for_too_much_is_not_waited_for(pauses):
    with pytest.raises(TransientStoreError, match=r"failed once.* asks to be left alone for 3600 s$") as caught:
        with_retries(failing(TransientStoreError("busy", retry_after=3600)), WHAT)
    assert caught.value.retry_after == 3600
    assert pauses == []


def test_no_attempts_at_all_are_a_mistake():
    with pytest.raises(ValueError, match="attempts must be at least 1, found 0"):
        with_retries(failing(), WHAT, attempts=0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0.5", 0.5), ("-3", 0), (None, None), ("soon", None), ("nan", None), ("inf", None), ("", None)],
)
def test_retry_after_holds_a_number_of_seconds(value, seconds):
    assert parse_retry_after(value) == seconds


def test_retry_after_may_hold_a_date():
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert parse_retry_after(format_datetime(in_a_minute, usegmt=True)) == pytest.approx(60, abs=5)
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
