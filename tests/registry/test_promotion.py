"""Moving aliases: promote, roll back, block, unblock, prune; and races."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tasks.errors import AliasConflictError, NotFoundError, ReleaseError
from tasks.records import GateDecision
from tasks.registry.files import AliasState, Decision
from tasks.registry.promotion import find_predecessor, is_settled, promote, rollback, unblock
from tasks.registry.releases import Registry
from tasks.registry.retention import prune
from tasks.settings import PublishSettings

Live = Callable[..., AliasState]


@pytest.fixture
def go_live(registry: Registry, make_release, now: datetime) -> Live:
    """Make release n and promote it."""

    def go(number: int, alias: str = "champion") -> AliasState:
        version = make_release(number)
        expected = registry.read_alias(alias)
        return promote(registry, version, alias, by="night", reason="gate", now=now, expected=expected)

    return go


@pytest.fixture
def roll_back(registry: Registry, now: datetime) -> Live:
    def back(alias: str = "champion", **versions: str) -> AliasState:
        return rollback(registry, alias, by="on call", reason="complaints", now=now + timedelta(hours=1), **versions)

    return back


def folder_of(registry: Registry, version: str) -> Path:
    return Path(registry.store.destination) / registry.version_path(version)


def live(registry: Registry, alias: str = "champion") -> str | None:
    state = registry.read_alias(alias)
    return state.version if state else None


def test_promotions_are_written_into_the_history_with_who_and_why(registry: Registry, go_live: Live):
    first, second = go_live(1).version, go_live(2).version
    state = registry.read_alias("champion")
    assert state is not None
    assert [(event.action, event.version) for event in state.history] == [("promote", first), ("promote", second)]
    assert (state.version, state.promoted_by, state.reason) == (second, "night", "gate")
    assert state.manifest_sha256 == registry.manifest_sha256(second)


def test_promoting_what_is_live_changes_nothing(registry: Registry, go_live: Live, now: datetime):
    state = go_live(1)
    again = promote(registry, state.version, "champion", by="x", reason="", now=now, expected=state)
    assert again == state == registry.read_alias("champion")


def test_an_alias_that_moved_since_it_was_read_is_not_overwritten(
    registry: Registry, go_live: Live, make_release, now: datetime
):
    stale, current, third = go_live(1), go_live(2), make_release(3)
    with pytest.raises(AliasConflictError, match=r"champion\.json: another run changed it"):
        promote(registry, third, "champion", by="late", reason="", now=now, expected=stale)
    with pytest.raises(AliasConflictError, match=r"champion\.json: another run changed it"):
        promote(registry, third, "champion", by="late", reason="", now=now, expected=None)
    assert live(registry) == current.version


def test_a_version_that_does_not_exist_or_is_incomplete_cannot_go_live(registry: Registry, make_release, now: datetime):
    with pytest.raises(NotFoundError, match="there is no version 20261120-000000000000"):
        promote(registry, "20261120-000000000000", "champion", by="me", reason="", now=now, expected=None)
    version = make_release(1)
    (folder_of(registry, version) / "config.json").unlink()
    with pytest.raises(ReleaseError, match=f"version {version} is incomplete: config.json: missing"):
        promote(registry, version, "champion", by="me", reason="", now=now, expected=None)


def test_rollback_goes_to_the_version_before_and_blocks_the_one_it_left(
    registry: Registry, go_live: Live, roll_back: Live
):
    first, second = go_live(1).version, go_live(2).version
    state = roll_back()
    assert live(registry) == first
    assert (state.promoted_by, state.reason) == ("on call", "complaints")
    assert [(block.version, block.model_fingerprint) for block in state.blocked] == [(second, "2" * 64)]
    assert registry.is_blocked("2" * 64)
    assert not registry.is_blocked("1" * 64)


def test_rolling_back_again_goes_further_back_and_never_to_a_blocked_version(
    registry: Registry, go_live: Live, roll_back: Live
):
    first, _, _ = go_live(1).version, go_live(2), go_live(3)
    roll_back()
    roll_back()
    assert live(registry) == first
    with pytest.raises(ReleaseError, match="no version was live under champion that still exists and is not blocked"):
        roll_back()


def test_rollback_skips_versions_that_were_pruned(registry: Registry, go_live: Live, roll_back: Live):
    first, second, _ = go_live(1).version, go_live(2).version, go_live(3)
    registry.store.delete_tree(registry.version_path(second))
    roll_back()
    assert live(registry) == first


def test_rollback_to_a_named_version(registry: Registry, go_live: Live, roll_back: Live):
    first, second, third = (go_live(number).version for number in (1, 2, 3))
    with pytest.raises(ReleaseError, match=f"{third} is what champion points at now"):
        roll_back(to=third)
    roll_back(to=first)
    assert live(registry) == first
    with pytest.raises(ReleaseError, match=f"version {third} was blocked on 2026-11-20T04:00:00.*by on call"):
        roll_back(to=third)
    roll_back(to=second)
    assert live(registry) == second


def test_a_rollback_that_means_another_version_than_is_live_takes_nothing_back(
    registry: Registry, go_live: Live, roll_back: Live
):
    first, second = go_live(1), go_live(2)
    with pytest.raises(ReleaseError, match=rf"points at {second.version}, not at {first.version}: .* moved it at"):
        roll_back(bad=first.version)
    assert registry.read_alias("champion") == second
    assert roll_back(bad=second.version).version == first.version


def test_rollback_of_an_alias_that_does_not_exist_is_refused(roll_back: Live):
    with pytest.raises(NotFoundError, match="there is no alias 'canary', so there is nothing to roll back"):
        roll_back("canary")


@pytest.mark.parametrize("damage", ["delete", "cut"])
def test_even_a_broken_or_lost_release_can_be_rolled_back_and_unblocked(
    registry: Registry, go_live: Live, roll_back: Live, now: datetime, damage: str
):
    first, second = go_live(1).version, go_live(2).version
    if damage == "delete":
        registry.store.delete_tree(registry.version_path(second))
    else:
        registry.store.write_bytes(f"{registry.version_path(second)}/manifest.json", b"{")
    roll_back()
    assert live(registry) == first
    assert registry.is_blocked("2" * 64)
    assert unblock(registry, second, by="me", reason="", now=now) == ["champion"]


@pytest.mark.parametrize("damage", ["incomplete", "other manifest"])
def test_rollback_passes_over_versions_that_are_not_what_they_were(
    registry: Registry, go_live: Live, roll_back: Live, damage: str, caplog: pytest.LogCaptureFixture
):
    first, second, _ = go_live(1).version, go_live(2).version, go_live(3)
    folder = folder_of(registry, second)
    if damage == "incomplete":
        (folder / "model.safetensors").unlink()
    else:
        manifest = folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes() + b" ")
    roll_back()
    assert live(registry) == first
    assert f"{second} cannot be gone back to" in caplog.text


def test_a_damaged_alias_beside_it_does_not_keep_a_bad_release_live_but_nothing_else_is_dared(
    registry: Registry, go_live: Live, roll_back: Live, make_release, now: datetime, caplog: pytest.LogCaptureFixture
):
    """It may hold a block that nobody sees, and point at a version that must not be removed."""
    first, second, third = go_live(1).version, go_live(2).version, make_release(3)
    registry.store.write_bytes(registry.alias_path("canary"), b"{")
    assert list(registry.alias_states()) == ["champion"]
    roll_back()
    assert live(registry) == first
    assert "alias canary is left out" in caplog.text
    advice = "canary.json: this is no JSON.*put an earlier state of it back.*delete it"
    with pytest.raises(ReleaseError, match=advice):
        promote(registry, third, "champion", by="me", reason="", now=now, expected=registry.read_alias("champion"))
    with pytest.raises(ReleaseError, match=advice):
        registry.is_blocked("3" * 64)
    with pytest.raises(ReleaseError, match=advice):
        prune(registry, keep=2)
    assert registry.versions() == [first, second, third]


def test_a_blocked_model_cannot_go_live_under_any_alias_until_it_is_unblocked(
    registry: Registry, go_live: Live, roll_back: Live, now: datetime
):
    go_live(1)
    second = go_live(2).version
    state = roll_back()
    for alias, expected in (("champion", state), ("canary", None)):
        with pytest.raises(ReleaseError, match=f"version {second} was blocked"):
            promote(registry, second, alias, by="me", reason="", now=now, expected=expected)

    assert unblock(registry, second, by="me", reason="the complaints were unfounded", now=now) == ["champion"]
    assert live(registry) != second
    assert not registry.is_blocked("2" * 64)
    state = registry.read_alias("champion")
    assert state is not None
    assert state.history[-1].action == "unblock"
    assert promote(registry, second, "champion", by="me", reason="", now=now, expected=state).version == second


def test_the_same_model_under_another_version_name_is_blocked_too(
    registry: Registry, go_live: Live, roll_back: Live, make_release, now: datetime
):
    go_live(1)
    state = dataclasses.replace(go_live(2))
    state = roll_back()
    third = make_release(3)
    path = f"{registry.version_path(third)}/manifest.json"
    registry.store.write_bytes(path, registry.store.read_bytes(path).replace(b"3" * 64, b"2" * 64))
    with pytest.raises(ReleaseError, match=f"version {third} was blocked"):
        promote(registry, third, "champion", by="me", reason="", now=now, expected=state)


def test_unblocking_what_is_not_blocked_lists_what_is(
    registry: Registry, go_live: Live, roll_back: Live, now: datetime
):
    first, second = go_live(1).version, go_live(2).version
    with pytest.raises(NotFoundError, match=f"version {second} is not blocked; blocked: none"):
        unblock(registry, second, by="me", reason="", now=now)
    roll_back()
    with pytest.raises(NotFoundError, match=f"version {first} is not blocked; blocked: {second}"):
        unblock(registry, first, by="me", reason="", now=now)


def test_aliases_move_independently(registry: Registry, go_live: Live, roll_back: Live):
    first = go_live(1).version
    second = go_live(2).version
    go_live(1, "canary")
    third = go_live(3, "canary").version
    assert registry.aliases() == ["canary", "champion"]
    roll_back("canary")
    assert (live(registry), live(registry, "canary")) == (second, first)
    assert third in {block.version for block in registry.blocks()}


def test_of_two_processes_that_promote_at_once_one_wins_and_the_other_is_told(
    registry: Registry, make_release, go_live: Live
):
    go_live(1)
    contenders = [make_release(2), make_release(3)]
    code = """
import sys
from datetime import UTC, datetime
from tasks.errors import AliasConflictError
from tasks.registry.promotion import promote
from tasks.registry.releases import open_registry
registry = open_registry(sys.argv[1], "demo")
expected = registry.read_alias("champion")
print("ready", flush=True)
sys.stdin.readline()
try:
    promote(registry, sys.argv[2], "champion", by="racer", reason="", now=datetime.now(UTC), expected=expected)
    print("won")
except AliasConflictError:
    print("lost")
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, registry.store.destination, version],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for version in contenders
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(outcomes) == ["lost", "won"]
    assert live(registry) == contenders[outcomes.index("won")]


def decision_of(number: int, status: str, version: str | None) -> Decision:
    gate = GateDecision(status != "rejected", ())
    return Decision("d" * 64, str(number) * 64, status, version, {}, {}, [], gate, "")  # pyright: ignore


def test_a_decision_stands_until_the_alias_would_move_where_it_did_not(
    registry: Registry, go_live: Live, roll_back: Live, now: datetime
):
    settings = PublishSettings(to=["/releases"])
    by_hand = PublishSettings(to=["/releases"], promote="manual")
    go_live(1)
    second = go_live(2).version
    published = decision_of(2, "published", second)
    assert is_settled(registry, published, settings)
    # Under an alias that the recipe did not name then, nothing was ever live.
    assert not is_settled(registry, published, settings.model_copy(update={"alias": "canary"}))
    assert is_settled(registry, decision_of(3, "rejected", None), settings)
    assert is_settled(registry, decision_of(3, "pending", "v3"), by_hand)
    assert not is_settled(registry, decision_of(3, "pending", "v3"), settings)
    roll_back()
    assert is_settled(registry, published, settings)
    assert is_settled(registry, decision_of(2, "pending", second), settings)
    unblock(registry, second, by="me", reason="", now=now)
    assert not is_settled(registry, published, settings)


def test_pruning_removes_the_oldest_by_sequence_but_nothing_that_is_needed(
    registry: Registry, go_live: Live, roll_back: Live, make_release
):
    canary = go_live(1, "canary").version
    versions = {number: go_live(number).version for number in (2, 3, 4)}
    roll_back()
    assert live(registry) == versions[3]
    versions |= {number: make_release(number) for number in (5, 6, 7)}
    # 1 is live under canary, 3 is live, 2 comes next in a rollback, 4 is blocked: of 5, 6 and 7 the oldest goes first.
    assert prune(registry, keep=6) == [versions[5]]
    assert prune(registry, keep=2, protected={versions[6]}) == [versions[7]]
    assert registry.versions() == [canary, versions[2], versions[3], versions[4], versions[6]]
    state = registry.read_alias("champion")
    assert state is not None
    assert find_predecessor(registry, state) == versions[2]
    assert prune(registry, keep=10) == []


def test_pruning_spares_what_every_alias_would_go_back_to(registry: Registry, go_live: Live):
    canary = [go_live(number, "canary").version for number in (1, 2)]
    live = [go_live(number).version for number in (3, 4, 5)]
    # 2 is live under canary and 1 comes before it; 5 is live and 4 comes before it.
    assert prune(registry, keep=2) == [live[0]]
    assert registry.versions() == [*canary, *live[1:]]


def test_pruning_leaves_versions_without_a_manifest_to_whoever_writes_them(registry: Registry, go_live: Live):
    unfinished = "20250101-aaaaaaaaaaaa"
    registry.store.write_bytes(f"{registry.version_path(unfinished)}/config.json", b"{}")
    versions = [go_live(number).version for number in (1, 2, 3)]
    assert prune(registry, keep=2) == [versions[0]]
    assert registry.store.exists(f"{registry.version_path(unfinished)}/config.json")
    assert registry.versions() == versions[1:]
