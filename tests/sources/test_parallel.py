import threading
import time

import pytest

from tasks.sources.parallel import Counter, in_parallel


def test_results_come_in_the_order_of_the_names():
    def work(name: str) -> str:
        threading.Event().wait(0.02 if name == "a" else 0)
        return name.upper()

    assert list(in_parallel(["a", "b", "c"], work).items()) == [("a", "A"), ("b", "B"), ("c", "C")]
    assert in_parallel([], work) == {}


def test_an_error_does_not_wait_for_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.sources.parallel._SETTLE_SECONDS", 0.1)
    release = threading.Event()

    def work(name: str) -> None:
        if name == "bad":
            raise ValueError("bad")
        release.wait(100)

    started = time.monotonic()
    with pytest.raises(ValueError, match="bad"):
        in_parallel(["hangs", "bad"], work)
    assert time.monotonic() - started < 50
    release.set()


def test_progress_adds_up_and_ends_transfers_when_it_is_stopped():
    seen: list[tuple[int, int]] = []
    counter = Counter(100, lambda done, total: seen.append((done, total)))
    for n_bytes in (40, 40, -40, 60):
        counter.add(n_bytes)
    assert seen == [(40, 100), (80, 100), (40, 100), (100, 100)]
    counter.stop.set()
    with pytest.raises(Exception, match="another file failed"):
        counter.add(1)
    Counter(1, None).add(1)
