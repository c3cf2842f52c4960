import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path

import pytest

from tasks.cache import ResultCache
from tasks.digests import hash_bytes, hash_file
from tasks.errors import NotFoundError, StoreError
from tasks.records import FileDigest
from tasks.sources.fetch import FetchedFile, fetch_files, known_digest, known_digests, link_folder
from tasks.sources.folder import FolderSource
from tasks.sources.source import RemoteFile, Report, find_file

FILES = {"config.json": b"{}", "a/weights": b"w" * 1000, "b/weights": b"v" * 3000}


class MemorySource:
    """A source of bytes in memory that counts downloads and can be told what happens in them."""

    uri, revision = "memory://model", ""

    def __init__(self, files: Mapping[str, bytes] = FILES, states_sha256: bool = True):
        self.contents = dict(files)
        self.downloads: list[str] = []
        self.on_download: Callable[[str], None] = lambda path: None
        self._files = {
            path: RemoteFile(len(data), f"etag:{hashlib.md5(data).hexdigest()}", hash_bytes(data).sha256)
            if states_sha256
            else RemoteFile(len(data), f"etag:{hashlib.md5(data).hexdigest()}")
            for path, data in files.items()
        }

    def list_files(self) -> Mapping[str, RemoteFile]:
        return self._files

    def describe(self, path: str) -> RemoteFile:
        return find_file(self._files, path, self.uri)

    def find_copy(self, path: str) -> Path | None:
        return None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        return self.contents[path][start : start + length]

    def download(self, path: str, folder: Path, report: Report) -> Path:
        self.downloads.append(path)
        self.on_download(path)
        goal = folder / "part"
        goal.write_bytes(self.contents[path])
        report(len(self.contents[path]))
        return goal


def stored(cache: ResultCache) -> dict[str, bytes]:
    """Name to content of everything in the content store."""
    files = (cache.folder / "files").glob("[!.]*/*")
    return {path.name: path.read_bytes() for path in files if path.suffix != ".used"}


def test_every_file_comes_once_and_lies_in_the_store_by_its_content(cache: ResultCache):
    source = MemorySource()
    fetched = fetch_files(source, ["b/weights", "config.json"], cache)
    assert list(fetched) == ["b/weights", "config.json"]
    # sha256 of two braces, by sha256sum
    name = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert fetched["config.json"].path == cache.folder / "files" / "44" / name
    assert fetched["config.json"].digest == FileDigest(name, 2)
    assert fetched["b/weights"].path.read_bytes() == FILES["b/weights"]
    fetch_files(source, FILES, cache)
    assert sorted(source.downloads) == sorted(FILES)


def test_content_that_the_place_does_not_state_is_remembered_for_the_next_time(cache: ResultCache):
    assert known_digest(MemorySource(states_sha256=False), "config.json", cache) is None
    fetch_files(MemorySource(states_sha256=False), FILES, cache)
    again = MemorySource(states_sha256=False)
    assert known_digest(again, "config.json", cache) == hash_bytes(b"{}")
    assert known_digests(again, FILES, cache) == {path: hash_bytes(data) for path, data in FILES.items()}
    fetch_files(again, FILES, cache)
    assert again.downloads == []


def test_progress_is_told_over_all_files_those_that_are_here_included(cache: ResultCache):
    fetch_files(MemorySource(), ["a/weights"], cache)
    seen: list[tuple[int, int]] = []
    fetch_files(MemorySource(), FILES, cache, report=lambda done, total: seen.append((done, total)))
    assert seen[0] == (1000, 4002) and seen[-1] == (4002, 4002)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_equal_content_under_two_names_is_kept_once(cache: ResultCache):
    source = MemorySource({"a": b"same", "b": b"same"})
    fetched = fetch_files(source, ["a", "b"], cache)
    assert fetched["a"].path == fetched["b"].path


def test_a_file_that_the_source_does_not_list_is_named(cache: ResultCache):
    with pytest.raises(NotFoundError, match=r"memory://model: there is no file 'c'; files: config.json, a/weights"):
        fetch_files(MemorySource(), ["config.json", "c"], cache)
    with pytest.raises(NotFoundError, match="no file 'c'"):
        known_digest(MemorySource(), "c", cache)
    many = MemorySource({f"{number:02d}": b"" for number in range(25)})
    with pytest.raises(NotFoundError, match="18, 19 and 5 more"):
        fetch_files(many, ["c"], cache)


def test_damage_is_fetched_anew_once_then_refused_and_never_kept(cache: ResultCache):
    source = MemorySource()
    source.contents["a/weights"] = b"x" * 1000
    with pytest.raises(StoreError, match=r"a/weights of memory://model: .*expected sha256 .*, found .*\(1,000 bytes\)"):
        fetch_files(source, ["a/weights"], cache)
    assert source.downloads == ["a/weights"] * 2 and stored(cache) == {}
    source.contents["a/weights"] = b"short"
    with pytest.raises(StoreError, match="expected 1,000 bytes, found 5"):
        fetch_files(source, ["a/weights"], cache)
    source.contents["a/weights"] = FILES["a/weights"]
    assert fetch_files(source, ["a/weights"], cache)["a/weights"].path.read_bytes() == FILES["a/weights"]


def test_what_the_plan_expected_is_held_against_the_place_and_the_content(cache: ResultCache):
    planned = {"a/weights": hash_bytes(b"planned")}
    with pytest.raises(StoreError, match=r"the file changed: expected sha256 .* it says .*run again to plan"):
        fetch_files(MemorySource(), ["a/weights"], cache, expected=planned)
    with pytest.raises(StoreError, match="expected sha256"):
        fetch_files(MemorySource(states_sha256=False), ["a/weights"], cache, expected=planned)
    assert stored(cache) == {}


def test_a_file_that_was_damaged_in_the_store_is_fetched_again(cache: ResultCache, caplog: pytest.LogCaptureFixture):
    path = fetch_files(MemorySource(), ["a/weights"], cache)["a/weights"].path
    path.write_bytes(b"x" * 1000)
    assert fetch_files(MemorySource(), ["a/weights"], cache)["a/weights"].path.read_bytes() == FILES["a/weights"]
    assert "its content is not what its name says" in caplog.text


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    cache: ResultCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    source = MemorySource()
    with pytest.raises(StoreError, match="4,002 bytes to write, 1 free"):
        fetch_files(source, FILES, cache)
    assert source.downloads == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file: .* is no folder|cannot be written"):
        fetch_files(MemorySource(), FILES, ResultCache(tmp_path / "file"))


def test_threads_that_want_the_same_file_fetch_it_once(cache: ResultCache):
    source = MemorySource(states_sha256=False)
    source.on_download = lambda path: time.sleep(0.05)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch_files(source, ["a/weights"], cache)["a/weights"].path))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.downloads == ["a/weights"] and len(set(found)) == 1 and len(found) == 4


# Fetches one file slowly and prints how often it was downloaded.
_SLOW = """
import sys, time
sys.path[:0] = ["tests/sources"]
from pathlib import Path
from test_fetch import FILES, MemorySource
from tasks.cache import ResultCache
from tasks.sources.fetch import fetch_files
source = MemorySource(states_sha256=False)
source.on_download = lambda path: time.sleep(0.5)
fetched = fetch_files(source, ["a/weights"], ResultCache(Path(sys.argv[1])))
assert fetched["a/weights"].path.read_bytes() == FILES["a/weights"]
print(len(source.downloads))
"""


def test_processes_that_want_the_same_file_fetch_it_once(tmp_path: Path):
    commands = [[sys.executable, "-c", _SLOW, str(tmp_path)]] * 2
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert sorted(process.communicate(timeout=120)[0] for process in processes) == ["0\n", "1\n"]


def test_several_files_are_fetched_at_once_with_the_callers_context(cache: ResultCache):
    who: ContextVar[str] = ContextVar("who", default="nobody")
    who.set("caller")
    seen: list[str] = []
    together = threading.Barrier(3, timeout=120)  # Broken if they came one after the other.
    source = MemorySource()
    source.on_download = lambda path: (seen.append(who.get()), together.wait())[0]
    fetch_files(source, FILES, cache)
    assert seen == ["caller"] * 3


def test_the_first_error_ends_the_other_transfers(cache: ResultCache):
    source = MemorySource({"bad": b"1", "slow": b"2", **{f"more{number}": b"3" for number in range(20)}})

    def fail_or_wait(path: str) -> None:
        if path == "bad":
            raise NotFoundError("bad is gone")
        threading.Event().wait(0.05)

    source.on_download = fail_or_wait
    with pytest.raises(NotFoundError, match="bad is gone"):
        fetch_files(source, source.contents, cache)
    assert len(source.downloads) < 10


# Fetches from a source whose downloads take for ever, and says when it has begun.
_ENDLESS = """
import sys, threading
sys.path[:0] = ["tests/sources"]
from pathlib import Path
from test_fetch import MemorySource
from tasks.cache import ResultCache
from tasks.sources.fetch import fetch_files
source = MemorySource()
source.on_download = lambda path: (print(path, flush=True), threading.Event().wait())
fetch_files(source, ["a/weights"], ResultCache(Path(sys.argv[1])))
"""


def test_ctrl_c_ends_a_fetch_that_hangs(tmp_path: Path):
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path)]
    # Whoever runs the tests in the background ignores SIGINT, and children inherit that.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, log = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode != 0 and "KeyboardInterrupt" in log


def test_files_of_a_folder_stay_where_they_lie(cache: ResultCache, tmp_path: Path):
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "weights"
    weights.write_bytes(b"w")
    source = FolderSource(tmp_path / "model")
    assert fetch_files(source, ["weights"], cache) == {"weights": FetchedFile(weights, hash_bytes(b"w"))}
    assert known_digest(source, "weights", cache) is None
    assert stored(cache) == {}
    with pytest.raises(StoreError, match=r"weights: the file changed: expected sha256 .*found .*run again"):
        fetch_files(source, ["weights"], cache, expected={"weights": hash_bytes(b"v")})


def test_a_file_of_a_folder_that_cannot_be_read_is_named(
    cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "weights").write_bytes(b"w")

    def refuse(path: Path) -> FileDigest:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "digest_file", refuse)
    with pytest.raises(StoreError, match="weights: cannot be read: Permission denied"):
        fetch_files(FolderSource(tmp_path), ["weights"], cache)


def test_fetched_files_are_linked_under_their_names_and_equal_files_share_the_folder(cache: ResultCache):
    fetched = fetch_files(MemorySource(), FILES, cache)
    folder = link_folder(fetched, cache)
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    before = folder.stat().st_mtime_ns
    assert link_folder(dict(reversed(fetched.items())), cache) == folder
    assert folder.stat().st_mtime_ns == before
    assert link_folder({"other": fetched["config.json"]}, cache) != folder


def test_a_cache_may_be_moved_with_its_links(cache: ResultCache, tmp_path: Path):
    folder = link_folder(fetch_files(MemorySource(), FILES, cache), cache)
    cache.folder.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / folder.relative_to(cache.folder)
    assert {path: (moved / path).read_bytes() for path in FILES} == FILES


def test_links_that_lead_nowhere_or_elsewhere_are_made_anew(cache: ResultCache, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"w")
    one, two = (fetch_files(FolderSource(tmp_path / name), ["weights"], cache) for name in ("one", "two"))
    folder = link_folder(one, cache)
    (tmp_path / "one" / "weights").write_bytes(b"changed")
    assert link_folder(two, cache) == folder and (folder / "weights").read_bytes() == b"w"
    (folder / "weights").unlink()
    assert (link_folder(two, cache) / "weights").read_bytes() == b"w"


@pytest.mark.parametrize("path", ["../weights", "/weights", "a//b", "a/../../b", "."])
def test_names_that_lead_out_of_the_folder_are_refused(cache: ResultCache, tmp_path: Path, path: str):
    (tmp_path / "weights").write_bytes(b"w")
    file = FetchedFile(tmp_path / "weights", hash_file(tmp_path / "weights"))
    with pytest.raises(StoreError, match="files must lie inside the folder they are linked into; found"):
        link_folder({path: file}, cache)


def test_of_several_makers_of_one_folder_all_get_it(cache: ResultCache):
    fetched = fetch_files(MemorySource(), FILES, cache)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(link_folder(fetched, cache))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    assert os.listdir(cache.folder / "models") == [found[0].name]
