"""Publishing into every kind of place with the real clients: a folder, S3 and the Hub, and copies between them."""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from manifests import minimal_manifest
from s3_server import S3Server
from seeding import put_on_s3

import tasks.publish.release as module
from tasks.cache import ResultCache
from tasks.errors import AliasConflictError, ReleaseError
from tasks.night_records import RefreshReport
from tasks.publish.finish import finish_release
from tasks.publish.mirrors import complete_mirrors
from tasks.publish.release import publish_release
from tasks.records import Release
from tasks.registry.files import AliasState
from tasks.registry.promotion import rollback
from tasks.registry.releases import Registry, open_registry
from tasks.registry.retention import prune
from tasks.registry.verification import verify_release
from tasks.settings import PublishSettings

Publish = Callable[..., Release]

on_every_store = pytest.mark.parametrize("kind", ["folder", "s3", "hub"])


@pytest.fixture
def publish(now: datetime, cache: ResultCache) -> Publish:
    def run(report: RefreshReport, *to: str, by: str = "night", **changes: Any) -> Release:
        settings = PublishSettings.model_validate({"to": to, "keep": 3, **changes})
        return publish_release(report, settings, now=now, by=by, cache=cache)

    return run


def files_of(registry: Registry, version: str) -> dict[str, bytes]:
    """Of a version as readers see it; .gitattributes is the Hub's own."""
    folder = registry.version_path(version)
    paths = [path for path in registry.store.list_files(folder) if path != ".gitattributes"]
    return {path: registry.store.read_bytes(f"{folder}/{path}") for path in paths}


@on_every_store
def test_a_release_is_whole_live_and_verifies_and_releasing_it_again_changes_nothing(
    kind: str, destinations: dict[str, str], make_report, publish: Publish
):
    registry = open_registry(destinations[kind], "demo")
    release = publish(make_report(), destinations[kind])
    assert (release.version, release.sequence, release.promoted) == ("20261120-111111111111", 1, True)
    assert registry.resolve("champion") == release.version
    assert registry.manifest_sha256(release.version) == release.manifest_sha256
    assert verify_release(registry, "champion") == []
    before = files_of(registry, release.version)
    assert before.keys() >= {"README.md", "config.json", "manifest.json", "model.safetensors", "recipe.lock.yaml"}
    assert publish(make_report(), destinations[kind]) == release
    assert files_of(registry, release.version) == before


@on_every_store
def test_a_model_that_machines_have_merged_on_s3_is_released_from_there(
    kind: str, destinations: dict[str, str], make_report, publish: Publish, s3: S3Server
):
    report = make_report()
    merged = report.merged.checkpoint
    there = put_on_s3(s3, "s3://models/cache/merged/x", merged.folder)
    elsewhere = dataclasses.replace(merged, uri=there)
    report = dataclasses.replace(report, merged=dataclasses.replace(report.merged, checkpoint=elsewhere))
    places = [destinations[kind], "s3://models/mirror"]
    release = publish(report, *places)
    for place in places:
        registry = open_registry(place, "demo")
        found = files_of(registry, release.version)
        assert {path: found[path] for path in merged.files} == {
            path: (merged.folder / path).read_bytes() for path in merged.files
        }
        assert verify_release(registry, "champion") == []
    copied = {request.path.rpartition("/")[2] for request in s3.requests if request.operation == "CopyObject"}
    assert copied == (set(merged.files) if kind == "s3" else set())


def test_a_release_on_s3_that_was_damaged_is_found_without_reading_it_and_completed(
    s3: S3Server, destinations: dict[str, str], make_report, publish: Publish
):
    registry = open_registry(destinations["s3"], "demo")
    release = publish(make_report(), destinations["s3"])
    client, folder = s3.client(), f"releases/{registry.version_path(release.version)}"
    client.delete_object(Bucket="models", Key=f"{folder}/config.json")
    client.put_object(Bucket="models", Key=f"{folder}/README.md", Body=b"?")
    client.close()
    s3.requests.clear()
    publish(make_report(), destinations["s3"])
    put = [request.path.rpartition("/")[2] for request in s3.requests if request.operation == "PutObject"]
    assert sorted(name for name in put if not name.endswith(".json") or name == "config.json") == [
        "README.md",
        "config.json",
    ]
    read = {request.path for request in s3.requests if request.operation == "GetObject"}
    assert f"/models/{folder}/model.safetensors" not in read
    assert verify_release(registry, "champion") == []


@on_every_store
def test_of_two_runs_that_finish_together_one_wins_and_the_other_says_who(
    kind: str, destinations: dict[str, str], make_report, publish: Publish, monkeypatch
):
    """Both have uploaded and read the alias before either of them moves it."""
    together, go_live = threading.Barrier(2), module.promote

    def wait_for_the_other(*arguments: Any, **named: Any) -> AliasState:
        together.wait(60)
        return go_live(*arguments, **named)

    monkeypatch.setattr(module, "promote", wait_for_the_other)
    reports = {f"night {number}": make_report(number) for number in (1, 2)}
    results: dict[str, Release | AliasConflictError] = {}

    def run(by: str) -> None:
        try:
            results[by] = publish(reports[by], destinations[kind], by=by)
        except AliasConflictError as error:
            results[by] = error

    threads = [threading.Thread(target=run, args=(by,)) for by in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [by for by, result in results.items() if isinstance(result, Release)]
    [loser] = [by for by, result in results.items() if isinstance(result, AliasConflictError)]
    registry = open_registry(destinations[kind], "demo")
    live = registry.resolve("champion")
    assert isinstance(release := results[winner], Release)
    assert live == release.version
    assert str(results[loser]) == (
        f"champion points at {live} now, but this run compared with nothing: {winner} moved it at "
        "2026-11-20T03:00:00+00:00, and that stands; run again to compare with what is live"
    )
    # The loser's version is whole, though not live; its question was not answered, so it is asked again.
    assert len(registry.versions()) == 2
    assert all(verify_release(registry, version) == [] for version in registry.versions())
    assert registry.find_decision(reports[loser].plan.decision_fingerprint) is None
    monkeypatch.setattr(module, "promote", go_live)
    again = publish(make_report(int(loser[-1]), champion=live), destinations[kind], by=loser)
    assert again.promoted
    assert sorted(registry.versions()) == sorted([live, again.version])


@on_every_store
def test_a_run_whose_champion_is_not_live_any_more_uploads_nothing(
    kind: str, destinations: dict[str, str], make_report, publish: Publish
):
    first = publish(make_report(1), destinations[kind])
    with pytest.raises(AliasConflictError, match=f"points at {first.version} now, but this run compared with nothing"):
        publish(make_report(2), destinations[kind])
    assert open_registry(destinations[kind], "demo").versions() == [first.version]


@pytest.mark.parametrize(
    ("truth", "copy"), [("folder", "s3"), ("folder", "hub"), ("s3", "folder"), ("s3", "hub"), ("hub", "s3")]
)
def test_a_copy_of_another_kind_gets_what_is_at_hand_and_fetches_the_rest_from_the_truth(
    truth: str, copy: str, destinations: dict[str, str], make_report, publish: Publish, cache: ResultCache
):
    first = publish(make_report(1), destinations[truth])
    both = [destinations[truth], destinations[copy]]
    second = publish(make_report(2, champion=first.version), *both, promote="manual")
    source, target = (open_registry(place, "demo") for place in both)
    assert second.uris == tuple(each.store.uri(each.version_path(second.version)) for each in (source, target))
    # The first is not of this night: it came from the truth, so that the alias can point at it.
    assert target.versions() == [first.version, second.version]
    for version in target.versions():
        assert files_of(target, version) == files_of(source, version)
        assert verify_release(target, version) == []
    alias = source.alias_path("champion")
    assert target.store.read_bytes(alias) == source.store.read_bytes(alias)
    settings = PublishSettings(to=both)
    assert complete_mirrors(source, settings, second.version, {}, cache) == second.uris[1:]


def test_files_of_this_very_night_are_not_fetched_from_the_truth_again(
    s3: S3Server, destinations: dict[str, str], make_report, publish: Publish
):
    publish(make_report(), destinations["s3"], destinations["folder"])
    read = Counter(request.path.rpartition("/")[2] for request in s3.requests if request.operation == "GetObject")
    assert "model.safetensors" not in read
    assert "README.md" not in read


def test_a_copy_that_cannot_be_reached_lags_behind_and_is_completed_when_it_is_back(
    hub: HubServer, destinations: dict[str, str], make_report, publish: Publish, monkeypatch, caplog
):
    both = [destinations["folder"], destinations["hub"]]
    hub.expire_tokens()
    first = publish(make_report(1), *both)
    assert len(first.uris) == 1
    assert "hub://org lags behind; the next run will complete it" in caplog.text
    hub.clear()
    second = publish(make_report(2, champion=first.version), *both)
    target = open_registry(both[1], "demo")
    assert target.resolve("champion") == second.version
    assert verify_release(target, "champion") == []


@pytest.mark.parametrize("copy", ["s3", "hub"])
def test_a_copy_with_a_history_of_its_own_keeps_it(
    copy: str, destinations: dict[str, str], make_report, publish: Publish, now: datetime, cache: ResultCache, caplog
):
    first = publish(make_report(1), destinations[copy])
    publish(make_report(2, champion=first.version), destinations[copy])
    old = open_registry(destinations[copy], "demo")
    before = rollback(old, "champion", by="on call", reason="complaints", now=now)
    publish(make_report(3), destinations["folder"])
    truth, settings = open_registry(destinations["folder"], "demo"), PublishSettings(to=list(destinations.values()))
    state = truth.read_alias("champion")
    assert state is not None
    complete_mirrors(truth, settings, state.version, {}, cache)
    assert "champion has a history of its own there" in caplog.text
    assert open_registry(destinations[copy], "demo").read_alias("champion") == before
    assert verify_release(old, "champion") == []


def test_a_new_first_destination_must_have_the_champion_of_the_old_one(
    destinations: dict[str, str], make_report, publish: Publish, now: datetime, cache: ResultCache
):
    old, new = destinations["s3"], destinations["hub"]
    first = publish(make_report(1), old)
    second = publish(make_report(2, champion=first.version), old)
    before = rollback(open_registry(old, "demo"), "champion", by="on call", reason="complaints", now=now)
    with pytest.raises(ReleaseError, match=f"but at {first.version} in {old}, with a history and blocks"):
        publish(make_report(2), new, old)
    assert open_registry(new, "demo").versions() == []
    # As the message says.
    complete_mirrors(open_registry(old, "demo"), PublishSettings(to=[old, new]), first.version, {}, cache)
    assert not publish(make_report(2, champion=first.version), new, old).promoted
    assert [open_registry(place, "demo").read_alias("champion") for place in (old, new)] == [before, before]
    assert second.version in {block.version for block in before.blocked}


def test_a_copy_that_was_added_late_can_be_rolled_back_too(destinations: dict[str, str], make_report, publish: Publish):
    places = [destinations["s3"], destinations["hub"]]
    first = publish(make_report(1), places[0])
    second = publish(make_report(2, champion=first.version), *places)
    assert open_registry(places[1], "demo").versions() == [first.version, second.version]


def test_all_aliases_are_copied_with_what_they_point_at(destinations: dict[str, str], make_report, publish: Publish):
    first = publish(make_report(1), destinations["folder"], alias="canary")
    second = publish(make_report(2), destinations["folder"], destinations["s3"], destinations["hub"])
    for kind in ("s3", "hub"):
        copy = open_registry(destinations[kind], "demo")
        assert (copy.resolve("canary"), copy.resolve("champion")) == (first.version, second.version)
        assert verify_release(copy, "canary") == []


def test_a_commit_by_hand_on_main_is_found_and_the_next_night_puts_it_right(
    hub: HubServer,
    destinations: dict[str, str],
    make_report,
    publish: Publish,
    now: datetime,
    cache: ResultCache,
    caplog,
):
    release = publish(make_report(), destinations["hub"])
    registry = open_registry(destinations["hub"], "demo")
    hub.commit("org/demo", {"config.json": b'{"by": "hand"}', "extra.txt": b"by hand"})
    assert len(verify_release(registry, release.version)) == 2

    finish_release(registry, PublishSettings(to=[destinations["hub"]]), now=now, cache=cache)

    assert verify_release(registry, release.version) == []
    assert "champion.json@main is put right: " in caplog.text


@on_every_store
def test_what_was_done_in_a_copy_alone_is_told_when_it_is_undone(
    kind: str, destinations: dict[str, str], make_report, publish: Publish, now: datetime, cache: ResultCache, caplog
):
    places = [destinations["s3" if kind == "folder" else "folder"], destinations[kind]]
    first = publish(make_report(1), *places)
    second = publish(make_report(2, champion=first.version), *places)
    truth, copy = (open_registry(place, "demo") for place in places)
    rollback(copy, "champion", by="on call", reason="complaints", now=now)
    complete_mirrors(truth, PublishSettings(to=places), second.version, {}, cache)
    assert copy.read_alias("champion") == truth.read_alias("champion")
    assert f"rollback of {first.version} by on call (complaints) was done in this copy alone" in caplog.text


@pytest.mark.parametrize("copy", ["folder", "s3"])
def test_a_copy_that_lost_files_gets_them_back_and_one_of_another_manifest_is_named(
    copy: str, destinations: dict[str, str], make_report, publish: Publish, cache: ResultCache, s3: S3Server, caplog
):
    places = [destinations["hub"], destinations[copy]]
    release = publish(make_report(), *places)
    truth, target = (open_registry(place, "demo") for place in places)
    folder = target.version_path(release.version)
    if copy == "s3":
        s3.client().delete_object(Bucket="models", Key=f"releases/{folder}/model.safetensors")
    else:
        (Path(places[1]) / folder / "model.safetensors").unlink()
    settings = PublishSettings(to=places)
    complete_mirrors(truth, settings, release.version, {}, cache)
    assert verify_release(target, release.version) == []
    target.store.write_bytes(f"{folder}/manifest.json", b"{}")
    assert complete_mirrors(truth, settings, release.version, {}, cache) == ()
    assert "it is not the manifest of hub://org/demo@v20261120-111111111111" in caplog.text


@on_every_store
def test_old_versions_go_but_not_those_that_an_alias_needs(
    kind: str, destinations: dict[str, str], make_report, publish: Publish
):
    registry = open_registry(destinations[kind], "demo")
    canary = [publish(make_report(1), destinations[kind], alias="canary").version]
    canary.append(publish(make_report(2, champion=canary[0]), destinations[kind], alias="canary").version)
    made: list[str | None] = [None]
    for number in (3, 4, 5, 6):
        made.append(publish(make_report(number, champion=made[-1]), destinations[kind], keep=4).version)
    # 1 and 2 are what canary goes back to and points at; 6 is live and 5 comes before it: 3 and 4 may go.
    assert registry.versions() == [*canary, *made[3:]]
    assert prune(registry, keep=2) == []
    assert verify_release(registry, "canary") == verify_release(registry, "champion") == []


def test_a_version_is_found_among_ten_on_s3_with_one_list_and_a_read_of_each_manifest(
    s3: S3Server, destinations: dict[str, str], make_report, publish: Publish
):
    registry = open_registry(destinations["s3"], "demo")
    for number in range(10):
        version = f"2026{number + 1:02d}01-{str(number) * 12}"
        manifest = minimal_manifest(version, number, str(number) * 64, {})
        registry.store.write_bytes(f"{registry.version_path(version)}/manifest.json", module.encode_json(manifest))
    s3.requests.clear()
    assert registry.find_version("7" * 64) == "20260801-777777777777"
    assert Counter(request.operation for request in s3.requests) == {"ListObjectsV2": 1, "GetObject": 10}
    s3.requests.clear()
    # A manifest never changes: what this registry has read it knows.
    assert registry.next_sequence() == 10
    assert Counter(request.operation for request in s3.requests) == {"ListObjectsV2": 1}
    registry.store.delete_tree(registry.version_path("20260801-777777777777"))
    assert registry.find_version("7" * 64) is None
