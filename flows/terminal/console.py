"""What a person at the terminal sees: logs and progress on stderr, results on stdout, errors as sentences."""

import json
import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tasks.errors import CocktailError, RecipeError

EXIT_FAILED = 1
EXIT_USAGE = 2
PROJECT_LOGGERS = ("tasks", "flows")


class _StderrHandler(logging.Handler):
    """Asks for stderr at every line: progress bars put a stream in its place that knows how to step aside."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


_handler = _StderrHandler()
_handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s", "%H:%M:%S"))


def set_up_logging(verbose: bool) -> None:
    """Log lines of this project to stderr."""
    for name in PROJECT_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.addHandler(_handler)


class Console:
    """One command's way of talking: `as_json` keeps stdout for one JSON object."""

    def __init__(self, as_json: bool):
        self._as_json = as_json

    def result(self, data: Any, *parts: RenderableType) -> None:
        """Print the result: the JSON of `data`, or the tables and sentences for people."""
        if self._as_json:
            click.echo(json.dumps(data, indent=2, allow_nan=False))
            return
        # Names, paths and reasons are printed as they are, whatever brackets and colons they hold.
        console = RichConsole(markup=False, emoji=False, highlight=False)
        for part in parts:
            # Sentences and paths are not broken: they are copied, and searched for.
            console.print(part, soft_wrap=isinstance(part, str))

    @contextmanager
    def progress(self) -> Generator[Callable[[str], Callable[[int, int], None]]]:
        """Progress bars on stderr, one per piece of work; none where stderr is no terminal."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        console = RichConsole(stderr=True, markup=False, emoji=False)
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            yield lambda text: _Bar(bars, text).show


class _Bar:
    """A bar that is made at the first report: what the cache answers, or what waits for a device, has none."""

    def __init__(self, bars: Progress, label: str):
        self._bars, self._label = bars, label
        self._task: TaskID | None = None

    def show(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task(self._label, total=total)
        self._bars.update(self._task, completed=done, total=total)


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
