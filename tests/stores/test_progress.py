"""Long uploads say how far they are."""

import logging

import pytest

from tasks.stores.progress import INTERVAL_SECONDS, UploadProgress


def test_a_line_is_logged_once_in_an_interval_with_what_has_arrived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    now = [100.0]
    monkeypatch.setattr("tasks.stores.progress.time.monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    progress = UploadProgress("s3://models/demo", 8_000_000)
    progress.add(1_000_000)
    assert caplog.messages == []
    now[0] += INTERVAL_SECONDS
    progress.add(1_000_000)
    progress.add(1_000_000)
    assert caplog.messages == ["upload to s3://models/demo: 25 % of 8.0 MB"]


def test_nothing_to_send_is_all_of_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr("tasks.stores.progress.INTERVAL_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    UploadProgress("hub://org/demo", 0).add(0)
    assert caplog.messages == ["upload to hub://org/demo: 100 % of 0.0 MB"]
