import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.cache import ResultCache, default_cache_folder, open_cache
from tasks.digests import hash_file
from tasks.errors import StoreError
from tasks.records import FileDigest
from tasks.settings import CacheSettings
from tasks.staging import locked, staged

KEY = {"model": "abc", "settings": {"max_length": 8}}


def make_old(path: Path, seconds: float) -> None:
    """Set the last use of a file back."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def only_result(folder: Path) -> Path:
    (path,) = folder.rglob("*.json")
    return path


def test_what_was_put_is_found_again_by_an_equal_key(tmp_path: Path):
    ResultCache(tmp_path).put("score", KEY, {"losses": [0.1, 2.5e-300], "n": 3})
    assert ResultCache(tmp_path).get("score", dict(reversed(KEY.items()))) == {"losses": [0.1, 2.5e-300], "n": 3}


def test_another_kind_or_key_is_a_miss(tmp_path: Path):
    cache = ResultCache(tmp_path)
    cache.put("score", KEY, {"n": 3})
    assert cache.get("evaluate", KEY) is None
    assert cache.get("score", KEY | {"model": "abd"}) is None


def test_numbers_as_keys_are_found_again(tmp_path: Path):
    cache = ResultCache(tmp_path)
    cache.put("score", {}, {"by_length": {2: "b", 10: "a"}})  # type: ignore[dict-item]
    assert cache.get("score", {}) == {"by_length": {"2": "b", "10": "a"}}


def test_a_damaged_entry_is_a_miss_and_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = ResultCache(tmp_path)
    cache.put("score", KEY, {"loss": 1.25})
    path = only_result(tmp_path)
    path.write_text(path.read_text().replace("1.25", "1.26"))
    assert cache.get("score", KEY) is None
    assert not path.exists()
    assert "does not agree with its digest" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"digest": "0"}', b"\xff\xfe"])
def test_what_is_no_entry_at_all_is_a_miss(tmp_path: Path, content: bytes):
    cache = ResultCache(tmp_path)
    cache.put("score", KEY, {"loss": 1.25})
    only_result(tmp_path).write_bytes(content)
    assert cache.get("score", KEY) is None


def test_an_entry_copied_to_another_name_is_not_believed(tmp_path: Path):
    cache = ResultCache(tmp_path)
    cache.put("score", {"model": "a"}, {"loss": 1.0})
    entry = only_result(tmp_path).read_text()
    cache.put("score", {"model": "b"}, {"loss": 2.0})
    for path in tmp_path.rglob("*.json"):
        path.write_text(entry)
    assert cache.get("score", {"model": "a"}) == {"loss": 1.0}
    assert cache.get("score", {"model": "b"}) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(tmp_path: Path, number: float):
    cache = ResultCache(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.put("score", KEY, {"loss": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.get("score", {"temperature": number})
    assert not list(tmp_path.rglob("*.json"))


def test_the_least_recently_used_goes_first_and_use_is_noted(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=2500)
    for number in range(4):  # About 550 bytes each: four fit, five do not.
        cache.put("score", {"number": number}, {"text": "x" * 400})
        make_old(max(tmp_path.rglob("*.json"), key=os.path.getctime), seconds=1000 - number)
    assert cache.get("score", {"number": 0}) is not None
    cache.put("score", {"number": 4}, {"text": "x" * 400})
    found = [number for number in range(5) if cache.get("score", {"number": number})]
    assert 0 in found and 4 in found and 1 not in found
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.json")) <= 2500


def test_pruning_leaves_what_is_not_the_caches_own(tmp_path: Path):
    other = tmp_path / "work" / "merged.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"x" * 5000)
    cache = ResultCache(tmp_path, max_bytes=100)
    cache.put("score", KEY, {"text": "x" * 400})
    assert other.exists()
    assert cache.get("score", KEY) is None  # Larger than the whole cache may be.


def test_a_blob_that_a_run_may_be_reading_is_not_pruned(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=1000)
    old, new = cache.put_blob(b"x" * 800, ".jsonl"), cache.put_blob(b"y" * 800, ".jsonl")
    make_old(old, seconds=2 * 24 * 3600)
    cache.put("score", KEY, {"n": 1})
    assert new.exists() and not old.exists()


def keep_file(cache: ResultCache, content: bytes, age: float = 0.0) -> Path:
    """A file in the content store, last used `age` seconds ago."""
    draft = cache.folder / "draft"
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(content)
    path = cache.add_file(draft, hash_file(draft))
    make_old(path.with_name(path.name + ".used"), age)
    return path


DAY = 24 * 3600.0


def test_a_file_is_kept_by_its_content_and_found_without_being_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = ResultCache(tmp_path)
    path = keep_file(cache, b"weights")
    digest = hash_file(path)
    assert path == tmp_path / "files" / digest.sha256[:2] / digest.sha256
    monkeypatch.setattr("tasks.cache.hash_file", None)
    assert ResultCache(tmp_path).find_file(digest) == path
    assert cache.find_file(FileDigest(digest.sha256, 8)) is None  # Of another size: not this content.
    assert cache.find_file(FileDigest(digest.sha256[::-1], 7)) is None


def test_a_file_that_was_damaged_is_not_found_and_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = ResultCache(tmp_path)
    path = keep_file(cache, b"weights")
    digest = hash_file(path)
    path.write_bytes(b"weighed")
    assert cache.find_file(digest) is None
    assert not path.exists() and "its content is not what its name says" in caplog.text


def test_a_file_that_cannot_be_read_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = ResultCache(tmp_path)
    digest = hash_file(keep_file(cache, b"weights"))

    def refuse(path: Path) -> FileDigest:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "digest_file", refuse)
    assert cache.find_file(digest) is None


def test_a_file_that_cannot_be_kept_is_an_error(tmp_path: Path):
    (tmp_path / "files").write_text("")
    with pytest.raises(StoreError, match=r"cache folder .* cannot be written.*choose another with --cache"):
        keep_file(ResultCache(tmp_path), b"weights")


def test_files_used_least_recently_are_pruned_and_those_of_the_last_day_stay(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=10_000)
    ages = {"oldest": 9 * DAY, "older": 8 * DAY, "asked for": 7 * DAY, "today": 0.5 * DAY}
    paths = {name: keep_file(cache, name.encode() * 500, age) for name, age in ages.items()}
    digest = hash_file(paths["asked for"])
    assert ResultCache(tmp_path).find_file(digest) == paths["asked for"]  # Which is a use.
    keep_file(cache, b"new" * 500)
    assert {name for name, path in paths.items() if path.exists()} == {"asked for", "today"}
    used = {path.stem for path in (tmp_path / "files").rglob("*.used")}
    assert used == {path.name for path in (tmp_path / "files").glob("*/*") if path.suffix != ".used"}


def test_files_in_use_may_exceed_the_bound_and_results_keep_their_tenth(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=20_000)
    cache.put("score", KEY, {"n": 1})
    in_use = [keep_file(cache, bytes([number]) * 9000) for number in range(4)]
    assert all(path.exists() for path in in_use)
    assert cache.get("score", KEY) == {"n": 1}


def test_folders_of_links_go_with_their_files(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=10_000)
    for name, age in (("old", 2 * DAY), ("new", 0.0)):
        path = keep_file(cache, name.encode() * 2000, age)
        link = tmp_path / "models" / name / "deep" / "weights"
        link.parent.mkdir(parents=True)
        link.symlink_to(path)
    keep_file(cache, b"newer" * 1000)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["new"]


def test_partial_downloads_are_swept_after_a_week_unless_somebody_goes_on_with_them(tmp_path: Path):
    files = tmp_path / "files"
    for name, age in (("week", 8 * DAY), ("day", DAY), ("resumed", 8 * DAY)):
        part = files / f".partial-{name}" / "part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 50_000)
        for path in (part, part.parent):
            make_old(path, age)
    with locked(files / ".partial-resumed.lock"):
        cache = ResultCache(tmp_path, max_bytes=100)
        cache.put("score", KEY, {"n": 1})
        assert sorted(path.name for path in files.iterdir() if path.is_dir()) == [".partial-day", ".partial-resumed"]


def test_drafts_of_processes_that_died_are_removed_and_those_of_living_ones_stay(tmp_path: Path):
    cache = ResultCache(tmp_path, max_bytes=800)
    dead = tmp_path / "blobs" / ".staging-dead"
    dead.parent.mkdir()
    for path in (dead, dead.with_name(".staging-dead.lock")):
        path.write_bytes(b"x" * 5000)
    with staged(tmp_path / "blobs" / "b") as living:
        living.write_bytes(b"x" * 5000)
        cache.put_blob(b"y" * 900)
        assert living.exists() and not dead.exists()


def test_a_blob_is_named_by_its_content_and_mended_when_damaged(tmp_path: Path):
    cache = ResultCache(tmp_path)
    path = cache.put_blob(b"rows", ".jsonl")
    # sha256 of the four letters, by sha256sum
    assert path.name == ("bc51e9e65d79e1c90ba544ab2eae1044ccdf8c1af7a559ba375cba4276f7d99e.jsonl")
    path.write_bytes(b"ruws")
    assert cache.put_blob(b"rows", ".jsonl") == path
    assert path.read_bytes() == b"rows"


def test_a_folder_that_cannot_be_written_costs_the_saving_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    cache = ResultCache(tmp_path / "file" / "cache")
    cache.put("score", KEY, {"n": 1})
    cache.put("score", KEY, {"n": 1})
    assert cache.get("score", KEY) is None
    (warning,) = caplog.records
    assert f"results are not kept for the next run: {tmp_path}/file/cache" in warning.getMessage()
    with pytest.raises(StoreError, match=r"cache folder .*/file/cache cannot be written.*choose another with --cache"):
        cache.put_blob(b"rows")


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    hashed: list[Path] = []
    monkeypatch.setattr("tasks.cache.hash_file", lambda path: hashed.append(path) or hash_file(path))
    monkeypatch.setattr("tasks.cache._RACY_NANOSECONDS", -(10**18))  # As if the file were old.
    first = ResultCache(tmp_path / "cache").digest_file(model)
    assert ResultCache(tmp_path / "cache").digest_file(model) == first == hash_file(model)
    assert hashed == [model]


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"one")
    cache = ResultCache(tmp_path / "cache")
    cache.digest_file(model)
    assert not (tmp_path / "cache").exists()


def test_content_written_in_place_under_its_old_time_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"one")
    status = model.stat()
    cache = ResultCache(tmp_path / "cache")
    monkeypatch.setattr("tasks.cache._RACY_NANOSECONDS", -(10**18))
    cache.digest_file(model)
    time.sleep(0.02)  # A tick of the file system's clock.
    model.write_bytes(b"two")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.digest_file(model) == hash_file(model)


def test_a_link_and_its_goal_share_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.cache._RACY_NANOSECONDS", -(10**18))
    model, link = tmp_path / "blob", tmp_path / "model.safetensors"
    model.write_bytes(b"one")
    link.symlink_to(model)
    cache = ResultCache(tmp_path / "cache")
    assert cache.digest_file(link) == cache.digest_file(model)
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


# Puts and gets shared keys in a cache that prunes all the time; ends with 1 at the first wrong answer.
_HAMMER = """
import sys
from pathlib import Path
from tasks.cache import ResultCache
cache = ResultCache(Path(sys.argv[1]), max_bytes=3000)
for step in range(150):
    number = (step * 7 + int(sys.argv[2])) % 20
    if cache.get("score", {"number": number}) not in (None, {"text": f"{number}" * 100}):
        sys.exit(1)
    cache.put("score", {"number": number}, {"text": f"{number}" * 100})
"""


def test_processes_that_share_a_cache_never_see_half_an_entry(tmp_path: Path):
    commands = [[sys.executable, "-c", _HAMMER, str(tmp_path), seed] for seed in ("0", "3")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0
        assert not log  # A damaged entry would have been logged.
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache_folder() == Path("/caches/lm-cocktail-flows")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "lm-cocktail-flows"


def test_a_cache_is_opened_as_its_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = open_cache(CacheSettings(max_size="2MB"))
    assert (cache.folder, cache.max_bytes) == (tmp_path / "lm-cocktail-flows", 2_000_000)
    assert open_cache(CacheSettings(folder=str(tmp_path / "own"))).folder == tmp_path / "own"
    assert cache.shared is None
    shared = open_cache(CacheSettings(shared="s3://team/cache", share_downloads=True, max_size="2MB")).shared
    assert shared is not None
    assert (shared.uri, shared.max_bytes, shared.has_downloads) == ("s3://team/cache", 2_000_000, True)
    assert not (tmp_path / "lm-cocktail-flows").exists()


def test_a_cache_that_cannot_be_is_refused_with_all_that_is_wrong():
    with pytest.raises(ValidationError) as refused:
        CacheSettings(folder="s3://team/cache", shared="team/cache")
    assert "folder: 's3://team/cache' is no folder of this machine" in str(refused.value)
    assert "shared: 'team/cache' is no prefix on S3; write s3://bucket/prefix" in str(refused.value)
    with pytest.raises(ValidationError, match="share_downloads: there is nowhere to share them"):
        CacheSettings(share_downloads=True)
    assert CacheSettings(shared="s3://team").shared == "s3://team"
