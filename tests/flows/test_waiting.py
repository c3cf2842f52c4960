"""What a person is told of a version that waits, and when there is nothing to ask any more."""

from dataclasses import replace
from pathlib import Path

import pytest
from waiting_releases import BY_HAND, LIVE, NEW, OTHER, make_releases

from flows.waiting import Waiting, ask_briefly, describe_waiting, find_end, read_compared
from tasks.errors import AliasConflictError
from tasks.registry.promotion import promote, rollback
from tasks.registry.refusals import refuse


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(make_releases(tmp_path / "releases"), NEW, "champion", LIVE)


def test_a_version_that_waits_has_no_end_yet_and_is_compared_with_what_is_live(waiting: Waiting):
    assert find_end(waiting) is None
    assert read_compared(waiting) == waiting.registry.read_alias("champion")


def test_a_command_or_an_answer_ends_the_question(waiting: Waiting):
    registry = waiting.registry
    refuse(registry, NEW, by="ada", reason="rude", now=BY_HAND["now"])
    assert find_end(waiting) == ("Refused", f"{NEW}: refused by ada: rude")
    promote(registry, NEW, "champion", expected=registry.read_alias("champion"), **BY_HAND)
    assert find_end(waiting) == (
        "Approved", f"champion points at {NEW}: ops moved it at 2026-11-20T03:00:00+00:00: by hand",
    )  # fmt: skip
    rollback(registry, "champion", **BY_HAND)
    assert find_end(waiting) == ("Blocked", f"{NEW} was rolled back by ops: by hand")


def test_a_comparison_with_what_is_live_no_more_is_over(waiting: Waiting):
    promote(waiting.registry, OTHER, "champion", expected=waiting.registry.read_alias("champion"), **BY_HAND)
    winner = rf"points at {OTHER} now: ops moved it at .* \(by hand\)"
    with pytest.raises(AliasConflictError, match=f"{winner}; the gate compared {NEW} with {LIVE}, .*cocktail promote"):
        read_compared(waiting)


def test_a_first_release_is_compared_with_nothing(waiting: Waiting):
    assert read_compared(replace(waiting, alias="canary", compared_with=None)) is None
    with pytest.raises(AliasConflictError, match=f"canary points at nothing now; the gate compared {NEW} with {LIVE}"):
        read_compared(replace(waiting, alias="canary"))


def test_the_form_is_short_and_says_where_the_rest_is(waiting: Waiting):
    location = waiting.registry.location
    assert ask_briefly(waiting, 48, "assistant-question") == (
        f"**Shall `{NEW}` of `{location}` go live?** `champion` points at `{LIVE}`.\n\n"
        "The gate let it pass (1 rule). What was measured, and more, is in this run's artifact "
        "`assistant-question`.\n\nWithout an answer within 48 hours this run fails, and the version waits on."
    )


def test_the_artifact_tells_what_is_compared_and_what_each_answer_does(waiting: Waiting):
    location = waiting.registry.location
    # Written by hand after the releases' manifests.
    assert describe_waiting(waiting, 48) == (
        f"**Shall `{NEW}` of `{location}` go live?** `champion` points at `{LIVE}`.\n\n"
        "| task | metric | this version | live | base |\n| --- | --- | --- | --- | --- |\n"
        "| clinc | accuracy ↑ | 0.9000 | 0.8000 |  |\n\n\n"
        "| model | weight | loss |\n| --- | --- | --- |\n| news | 0.7500 | 1.5000 |\n\n\n- clinc: +0.1\n\n"
        f"All of it on one page: `file://{location}/versions/{NEW}/report.html`\n\n"
        "Without an answer within 48 hours this run fails, and the version waits on: "
        f"`cocktail promote {location} {NEW} --reason WHY`. "
        "A refusal keeps this model from going live, and from being asked about again, until `cocktail unblock`."
    )
