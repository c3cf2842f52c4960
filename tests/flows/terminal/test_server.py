"""Prefect as the command line uses it: a server that answers and outlives Ctrl-C, and no traceback for a sentence."""

import logging
import os
import signal
from collections.abc import Generator
from types import SimpleNamespace
from typing import ClassVar

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows.terminal.server as module
from flows.terminal.server import prepare_prefect
from tasks.errors import CocktailError, RecipeError


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """What is set for Prefect is taken back after the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_server_that_does_not_answer_is_named_with_where_to_look():
    # Port 9 (discard) has no listener.
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(CocktailError, match=r"Prefect's server does not answer: .*refused; `prefect config view`"),
    ):
        prepare_prefect()


class Client:
    """Notes which signals the thread blocks that starts the server: the server inherits them."""

    blocked: ClassVar[set[signal.Signals]] = set()

    def __init__(self, **_: bool):
        Client.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def __enter__(self) -> SimpleNamespace:
        return SimpleNamespace(api_healthcheck=lambda: None)

    def __exit__(self, *_: object) -> None:
        pass


def test_ctrl_c_does_not_reach_the_temporary_server(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr("prefect.client.orchestration.get_client", Client)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), caplog.at_level(logging.INFO, "flows"):
        prepare_prefect()
    assert signal.SIGINT in Client.blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert "so a temporary one starts" in caplog.text


def test_a_process_that_is_told_to_end_calls_its_exit_functions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("prefect.client.orchestration.get_client", Client)
    prepare_prefect()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143


def test_what_the_user_has_set_for_prefect_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("prefect.client.orchestration.get_client", Client)
    os.environ["DO_NOT_TRACK"] = "0"
    os.environ.pop("PREFECT_LOGGING_EXTRA_LOGGERS", None)
    prepare_prefect()
    assert os.environ["DO_NOT_TRACK"] == "0" and os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] == "tasks,flows"


@pytest.mark.parametrize(("error", "kept"), [(RecipeError("a sentence"), False), (ValueError("a bug"), True)])
def test_an_error_of_ours_has_no_traceback_in_prefects_log(error: Exception, kept: bool):
    record = logging.makeLogRecord({"exc_info": (type(error), error, None)})
    assert module._drop_traceback(record)
    assert bool(record.exc_info) is kept
