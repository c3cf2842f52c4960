"""The steps' own log lines, beside Prefect's in its UI."""

import copy
import logging

from flows.terminal.console import PROJECT_LOGGERS
from tasks.errors import CocktailError

_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def let_steps_speak() -> None:
    """Let lines of level INFO through, where nobody has said otherwise, and errors for people be sentences.

    PREFECT_LOGGING_EXTRA_LOGGERS gives our loggers Prefect's handlers, but no level; they would inherit the root's,
    which is WARNING in a process that a worker starts.
    """
    for name in _RUN_LOGGERS:
        # Once per logger, however often it is called: a filter that is there is not added again.
        logging.getLogger(name).addFilter(put_error_in_words)
    for name in PROJECT_LOGGERS:
        ours = logging.getLogger(name)
        if ours.level == logging.NOTSET:
            ours.setLevel(logging.INFO)


def put_error_in_words(record: logging.LogRecord) -> bool:
    """A logging filter that leaves an error meant for users its message, and its traceback to level DEBUG.

    Prefect logs the traceback of every error, and the error itself as Python writes it, with quotes and escapes. What
    is no CocktailError is a fault of the program, where the traceback is what helps; it stays as it is.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, CocktailError) and record.levelno > logging.DEBUG:
        if (logger := logging.getLogger(record.name)).isEnabledFor(logging.DEBUG):
            # A copy knows, as the record does, which run it is of.
            whole = copy.copy(record)
            whole.levelno, whole.levelname = logging.DEBUG, "DEBUG"
            logger.handle(whole)
        record.msg = record.getMessage().replace(repr(error), f"{type(error).__name__}: {error}")
        record.args, record.exc_info, record.exc_text = (), None, None
    return True
