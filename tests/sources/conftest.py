"""Stand-ins of the Hub and S3 on loopback for the real clients, and a cache of the test's own."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from huggingface_hub import close_session
from s3_server import S3Server

from tasks.cache import ResultCache
from tasks.remote.access import HubAccess, use_access


@pytest.fixture(scope="module")
def running_hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub
        close_session()


@pytest.fixture
def hub(running_hub: HubServer) -> Iterator[HubServer]:
    """A Hub without repositories, and the token that may do everything there."""
    running_hub.clear()
    with use_access(hub=HubAccess(running_hub.token, running_hub.endpoint)):
        yield running_hub


@pytest.fixture(scope="module")
def running_s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def s3_client(running_s3: S3Server) -> Any:
    """A plain client, to seed and to look; making one takes a third of a second."""
    return running_s3.client()


@pytest.fixture
def s3(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """S3 with the empty bucket `models`, which boto3 finds in the environment."""
    running_s3.clear()
    running_s3.create_bucket("models")
    for name, value in running_s3.environment().items():
        monkeypatch.setenv(name, value)
    return running_s3


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be slept; nobody sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept
