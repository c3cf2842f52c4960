"""The registry as readers see it."""

import dataclasses
import json
import subprocess
import sys
from datetime import datetime

import pytest

from tasks.errors import NotFoundError, ReleaseError, StoreError
from tasks.records import Evaluation, GateDecision
from tasks.registry.address import split_destination
from tasks.registry.files import Decision, format_time
from tasks.registry.promotion import promote
from tasks.registry.releases import Registry, open_registry


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("./releases/demo", ("./releases", "demo", None)),
        ("./demo/", (".", "demo", None)),
        ("/demo@champion", ("/", "demo", "champion")),
        ("../a@b/demo@20261120-000000000000", ("../a@b", "demo", "20261120-000000000000")),
        ("s3://models/support", ("s3://models", "support", None)),
        ("hub://org/model", ("hub://org", "model", None)),
    ],
)
def test_a_destination_is_taken_apart_into_place_name_and_revision(text: str, expected: tuple[str, str, str | None]):
    assert split_destination(text) == expected


@pytest.mark.parametrize("text", ["demo", "releases/demo", "s3://models", "./", "./a/..", ""])
def test_a_destination_without_place_or_name_is_refused(text: str):
    with pytest.raises(StoreError, match="names no releases; write destination/name"):
        split_destination(text)


def test_a_name_that_is_no_folder_name_is_refused():
    with pytest.raises(StoreError, match="'a/b' is no name for a model"):
        open_registry("/releases", "a/b")


def test_versions_are_ordered_by_sequence_and_not_by_their_dates(registry: Registry, make_release):
    assert registry.versions() == []
    assert registry.next_sequence() == 1
    made = [make_release(number) for number in (2, 1, 3)]
    assert registry.versions() == [made[1], made[0], made[2]]
    assert registry.next_sequence() == 4


def test_equal_sequences_are_ordered_by_name(registry: Registry, make_release):
    """Two runs that finish together may take the same."""
    first, second = make_release(1), make_release(2)
    path = f"{registry.version_path(second)}/manifest.json"
    data = json.loads(registry.store.read_bytes(path)) | {"sequence": 1}
    registry.store.write_bytes(path, json.dumps(data).encode())
    assert registry.versions() == sorted([first, second])
    assert registry.next_sequence() == 2


def test_listing_again_sees_what_came_and_went_since(registry: Registry, make_release):
    versions = [make_release(number) for number in (1, 2)]
    assert registry.versions() == versions
    registry.store.delete_tree(registry.version_path(versions[0]))
    third = make_release(3)
    assert registry.versions() == [versions[1], third]
    assert registry.next_sequence() == 4


def test_folders_without_a_manifest_and_damaged_ones_are_no_versions(registry: Registry, make_release, caplog):
    version = make_release(1)
    registry.store.write_bytes(f"{registry.version_path('20261120-aaaaaaaaaaaa')}/config.json", b"{}")
    registry.store.write_bytes(f"{registry.version_path('20261120-bbbbbbbbbbbb')}/manifest.json", b"{")
    registry.store.write_bytes(f"{registry.version_path('notes')}/manifest.json", b"{}")
    assert registry.versions() == [version]
    assert "version 20261120-bbbbbbbbbbbb is left out" in caplog.text


def test_versions_and_aliases_resolve_and_what_is_unknown_is_told_with_what_is_known(
    registry: Registry, make_release, now: datetime
):
    version = make_release(1)
    promote(registry, version, "champion", by="me", reason="", now=now, expected=None)
    assert registry.resolve("champion") == registry.resolve(version) == version
    with pytest.raises(NotFoundError, match="no alias 'canary'; aliases: champion"):
        registry.resolve("canary")
    with pytest.raises(NotFoundError, match=f"no version 20261120-000000000000; versions: {version}"):
        registry.resolve("20261120-000000000000")
    with pytest.raises(NotFoundError, match="cannot be an alias"):
        registry.resolve("../champion")


def test_a_model_is_found_by_its_whole_fingerprint(registry: Registry, make_release):
    version = make_release(1)
    assert registry.find_version("1" * 64) == version
    assert registry.find_version("1" * 63 + "2") is None


def test_a_new_version_is_named_by_utc_date_and_fingerprint_and_an_unfinished_one_keeps_its_name(registry: Registry):
    late = datetime.fromisoformat("2026-11-20T01:00:00+02:00")
    assert registry.name_version("ab" * 32, late) == "20261119-abababababab"
    registry.store.write_bytes(f"{registry.version_path('20260101-abababababab')}/config.json", b"{}")
    assert registry.name_version("ab" * 32, late) == "20260101-abababababab"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "this is no JSON, the file is damaged"),
        (b"[]", "expected a JSON object, found list"),
        (
            b'{"version": "1", "sequence": 1, "files": {}}',
            "no valid created_at, model_fingerprint, decision_fingerprint, models, evaluation, gate; "
            "the manifest is damaged",
        ),
    ],
)
def test_a_damaged_manifest_is_told(registry: Registry, make_release, content: bytes, message: str):
    version = make_release(1)
    registry.store.write_bytes(f"{registry.version_path(version)}/manifest.json", content)
    with pytest.raises(ReleaseError, match=message):
        registry.read_manifest(version)


def test_a_release_can_be_read_as_a_model_without_its_notes(registry: Registry, make_release, now: datetime):
    version = make_release(1)
    promote(registry, version, "champion", by="me", reason="", now=now, expected=None)
    checkpoint = registry.checkpoint("champion", "champion")
    assert list(checkpoint.files) == ["config.json", "model.safetensors"]
    assert checkpoint.revision == version
    assert checkpoint.model == f"release:{registry.store.destination}/demo@{version}"
    assert (checkpoint.folder / "model.safetensors").read_bytes() == b"weights 1"


def test_evaluations_come_back_as_they_were_measured(registry: Registry, make_release, evaluation: Evaluation):
    version = make_release(1)
    # A stored result took no time now.
    assert registry.evaluations(version) == (dataclasses.replace(evaluation, seconds=0.0, cached=True),)


def test_an_evaluation_file_that_was_edited_is_refused(registry: Registry, make_release):
    version = make_release(1)
    path = f"{registry.version_path(version)}/evaluation/news~merged.jsonl"
    registry.store.write_bytes(path, registry.store.read_bytes(path).replace(b"0.0", b"1.0"))
    with pytest.raises(ReleaseError, match=r"news~merged.jsonl: the content is not what the manifest says"):
        registry.evaluations(version)


def test_an_alias_file_has_the_keys_of_the_contract(registry: Registry, make_release, now: datetime):
    version = make_release(1)
    promote(registry, version, "champion", by="me", reason="better", now=now, expected=None)
    content = json.loads(registry.store.read_bytes("demo/aliases/champion.json"))
    assert list(content) == [
        "version", "manifest_sha256", "promoted_at", "promoted_by", "reason", "history", "blocked",
    ]  # fmt: skip
    assert content["version"] == version
    assert content["manifest_sha256"] == registry.manifest_sha256(version)
    assert content["promoted_at"] == "2026-11-20T03:00:00+00:00"
    assert content["history"][0]["action"] == "promote"


def test_decisions_are_found_by_their_question(registry: Registry, now: datetime):
    first = Decision("f" * 64, "1" * 64, "rejected", None, {"a": 1.0}, {"a": 0.5}, [{"task": "news"}],
                     GateDecision(False, ("news is worse",)), format_time(now))  # fmt: skip
    second = dataclasses.replace(first, decision_fingerprint="e" * 64, created_at="2027-01-01T00:00:00+00:00")
    registry.record_decision(second)
    registry.record_decision(first)
    assert registry.find_decision("f" * 64) == first
    assert registry.find_decision("0" * 64) is None
    assert registry.decisions() == [first, second]
    # A damaged one is asked anew; it must not end every night that meets it.
    registry.store.write_bytes(f"demo/decisions/{'e' * 64}.json", b"{")
    assert registry.find_decision("e" * 64) is None
    assert registry.decisions() == [first]


def test_a_writable_place_is_proven_without_leaving_traces(registry: Registry, tmp_path):
    registry.check_writable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "releases" / "demo").mkdir(parents=True)
    (tmp_path / "releases" / "demo" / "aliases").write_text("in the way")
    with pytest.raises(StoreError, match="aliases is no folder"):
        registry.check_writable()


def test_reading_and_publishing_releases_loads_no_heavy_library():
    code = (
        "import sys, tasks.registry.verification, tasks.registry.promotion, tasks.publish.release;"
        "heavy = {'torch', 'transformers', 'prefect', 'numpy', 'sklearn', 'sentence_transformers'};"
        "print(heavy & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded == "set()\n"
