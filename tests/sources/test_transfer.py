from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.errors import StoreError, TransientStoreError
from tasks.sources.transfer import append_download, read_bytes

DATA = bytes(range(200))


class Server:
    """Answers with at most `limit` bytes, then breaks off with an error or, if `is_silent`, without a word."""

    def __init__(self, limit: int = 1000, honours_ranges: bool = True, is_silent: bool = False):
        self.limit, self.honours_ranges, self.is_silent = limit, honours_ranges, is_silent
        self.asked: list[tuple[int, int]] = []

    @contextmanager
    def open(self, start: int, stop: int) -> Generator[tuple[int, Iterator[bytes]]]:
        self.asked.append((start, stop))
        begins = start if self.honours_ranges else 0
        yield begins, self._chunks(DATA[begins:stop])

    def _chunks(self, data: bytes) -> Iterator[bytes]:
        for offset in range(0, min(len(data), self.limit), 10):
            yield data[offset : min(offset + 10, self.limit)]
        if len(data) > self.limit and not self.is_silent:
            raise TransientStoreError("broken off")


@pytest.mark.parametrize("is_silent", [True, False])
def test_what_breaks_off_goes_on_from_there(tmp_path: Path, pauses: list[float], is_silent: bool):
    server, seen = Server(limit=60, is_silent=is_silent), list[int]()
    part = append_download(tmp_path / "new" / "part", 200, server.open, "place", seen.append)
    assert part.read_bytes() == DATA
    assert server.asked == [(0, 200), (60, 200), (120, 200), (180, 200)]
    assert sum(seen) == 200


def test_a_connection_that_brought_much_is_no_failed_attempt(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tasks.sources.transfer._PROGRESS_BYTES", 10)
    server = Server(limit=10)
    assert append_download(tmp_path / "part", 200, server.open, "place", lambda n: None).read_bytes() == DATA
    assert len(server.asked) == 20 and not pauses


def test_a_server_that_ignores_ranges_makes_it_start_over(tmp_path: Path, pauses: list[float]):
    part = tmp_path / "part"
    part.write_bytes(b"x" * 50)
    seen = list[int]()
    append_download(part, 200, Server(honours_ranges=False).open, "place", seen.append)
    assert part.read_bytes() == DATA
    assert seen[:2] == [50, -50] and sum(seen) == 200


def test_what_is_longer_than_the_file_is_of_something_else(tmp_path: Path):
    part = tmp_path / "part"
    part.write_bytes(b"x" * 201)
    assert append_download(part, 200, Server().open, "place", lambda n: None).read_bytes() == DATA


def test_an_empty_file_is_not_asked_for(tmp_path: Path):
    server = Server()
    assert append_download(tmp_path / "part", 0, server.open, "place", lambda n: None).read_bytes() == b""
    assert server.asked == []


def test_a_server_that_sends_nothing_is_given_up_and_what_came_stays(tmp_path: Path, pauses: list[float]):
    (tmp_path / "part").write_bytes(DATA[:70])
    server = Server(limit=0, is_silent=True)
    message = r"downloading place failed 5 times .*: the answer ended at byte 70 of 200"
    with pytest.raises(TransientStoreError, match=message):
        append_download(tmp_path / "part", 200, server.open, "place", lambda n: None)
    assert (tmp_path / "part").read_bytes() == DATA[:70] and len(server.asked) == 5


def test_ranges_are_whole_or_an_error(pauses: list[float]):
    assert read_bytes(5, 9, Server().open, "place") == DATA[5:9]
    assert read_bytes(9, 9, Server().open, "place") == b""
    with pytest.raises(
        TransientStoreError, match=r"reading place failed 5 times .*: expected 100 bytes from 5, found 60"
    ):
        read_bytes(5, 105, Server(limit=60, is_silent=True).open, "place")
    with pytest.raises(StoreError, match="place: the server sends whole files only; expected bytes 5 to 9"):
        read_bytes(5, 9, Server(honours_ranges=False).open, "place")
