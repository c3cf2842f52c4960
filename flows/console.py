"""What a person at the terminal sees: logs and progress on stderr, results on stdout, errors as sentences."""

import json
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tasks.cache import ResultCache, open_cache
from tasks.errors import CocktailError, RecipeError
from tasks.settings import CacheSettings

EXIT_FAILED = 1
EXIT_USAGE = 2

_LOGGERS = ("tasks", "flows")
_PREFECT_DEFAULTS = {
    # Ours show in the UI beside Prefect's own lines.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,flows",
    # 20 s, Prefect's default, is too short for its temporary server on a busy small machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


class Console:
    """One command's way of talking: `as_json` keeps stdout for one JSON object."""

    def __init__(self, as_json: bool):
        self._as_json = as_json

    @staticmethod
    def set_up_logging(verbose: bool) -> None:
        """Log lines of this project to stderr."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s", "%H:%M:%S"))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG if verbose else logging.INFO)
            logger.addHandler(handler)

    @staticmethod
    def cache(folder: Path | None, max_size: str) -> ResultCache:
        """The cache that the options name."""
        return open_cache(CacheSettings(folder=str(folder) if folder else None, max_size=max_size))

    def result(self, data: Any, *parts: RenderableType) -> None:
        """Print the result: the JSON of `data`, or the tables and sentences for people."""
        if self._as_json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
            return
        console = RichConsole()
        for part in parts:
            # Sentences and paths are not broken: they are copied, and searched for.
            console.print(part, soft_wrap=isinstance(part, str), highlight=not isinstance(part, str))

    @contextmanager
    def progress(self) -> Generator[Callable[[str], Callable[[int, int], None]]]:
        """Progress bars on stderr, one per piece of work; none where stderr is no terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=RichConsole(stderr=True), disable=not sys.stderr.isatty()) as bars:

            def start(label: str) -> Callable[[int, int], None]:
                bar = bars.add_task(label, total=None)
                return lambda done, total: bars.update(bar, completed=done, total=total)

            yield start


def hand_logs_to_prefect() -> None:
    """Let Prefect show our log lines, at the terminal and in its UI; to be called before Prefect is imported.

    What Prefect reads from the environment is set where the user did not. An error of ours is a sentence for the
    user: its traceback in the log would bury it.
    """
    for name in _LOGGERS:
        logging.getLogger(name).handlers.clear()
    for name, value in _PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_drop_traceback)


def _drop_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, CocktailError):
        record.exc_info = None
    return True


@contextmanager
def fail_clearly() -> Generator[None]:
    """Turn the project's errors into a message on stderr and an exit code; anything else keeps its traceback."""
    try:
        yield
    except RecipeError as error:
        _fail(error, EXIT_USAGE)
    except CocktailError as error:
        _fail(error, EXIT_FAILED)


def _fail(error: CocktailError, code: int) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(str(error), err=True)
    sys.exit(code)
