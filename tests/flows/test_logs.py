import logging
import sys

import pytest

from flows.logs import let_steps_speak, put_error_in_words
from tasks.errors import PreflightError


def test_the_steps_speak_unless_somebody_has_set_how_loud(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = logging.getLogger("tasks"), logging.getLogger("flows")
    monkeypatch.setattr(ours, "level", logging.NOTSET)
    monkeypatch.setattr(theirs, "level", logging.ERROR)
    let_steps_speak()
    assert (ours.level, theirs.level) == (logging.INFO, logging.ERROR)


def logged(error: Exception) -> logging.LogRecord:
    """As Prefect logs an error that ended a run."""
    try:
        raise error
    except Exception:
        message = "Encountered exception during execution: %r"
        return logging.LogRecord("runs", logging.ERROR, "", 0, message, (error,), sys.exc_info())


def test_an_error_meant_for_people_is_logged_as_its_message_and_its_traceback_for_those_who_debug(
    caplog: pytest.LogCaptureFixture,
):
    record = logged(PreflightError(["no such file: a", "no such file: b"]))
    with caplog.at_level(logging.DEBUG, "runs"):
        assert put_error_in_words(record)
    text = logging.Formatter().format(record)
    assert text == (
        "Encountered exception during execution: PreflightError: 2 problems found before any work started:\n"
        "  - no such file: a\n  - no such file: b"
    )
    [told] = caplog.records
    assert (told.levelno, told.levelname) == (logging.DEBUG, "DEBUG")
    assert "Traceback (most recent call last)" in caplog.text


def test_a_fault_of_the_program_keeps_its_traceback():
    record = logged(KeyError("weights"))
    assert put_error_in_words(record)
    text = logging.Formatter().format(record)
    assert text.startswith("Encountered exception during execution: KeyError('weights')\nTraceback")


def test_a_line_without_an_error_passes_as_it_is():
    record = logging.LogRecord("prefect.task_runs", logging.INFO, "", 0, "Finished in state %s", ("Completed()",), None)
    assert put_error_in_words(record)
    assert record.getMessage() == "Finished in state Completed()"


def test_the_runs_errors_are_put_in_words_once_however_many_flows_have_begun():
    let_steps_speak()
    let_steps_speak()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        assert logging.getLogger(name).filters.count(put_error_in_words) == 1
