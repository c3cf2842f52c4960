"""Arguments and options that commands share. What is wrong with one is told before the command begins (exit code 2)."""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from flows.terminal.console import Console
from tasks.cache import ResultCache, default_cache_folder, open_cache
from tasks.errors import StoreError
from tasks.recipe import Recipe
from tasks.settings import CacheSettings, ConnectionSettings
from tasks.values import parse_size

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Request:
    """What a command that reads a recipe and computes was asked for."""

    console: Console
    recipe_path: Path
    overrides: tuple[str, ...]
    cache_settings: CacheSettings

    def read_recipe(self) -> Recipe:
        """The recipe with its overrides; RecipeError if it cannot be used."""
        from flows.recipe import read_recipe

        return read_recipe(self.recipe_path, self.overrides)

    @contextmanager
    def connected_recipe(self) -> Generator[Recipe]:
        """`read_recipe`, and within the block we are on S3 and the Hub who the recipe says."""
        recipe = self.read_recipe()
        if recipe.connections == ConnectionSettings():
            yield recipe
            return
        # Blocks are Prefect's, which takes seconds to import.
        from flows.connections import load_access
        from tasks.remote.access import use_access

        with use_access(*load_access(recipe.connections)):
            yield recipe

    def open_cache(self) -> ResultCache:
        """The cache that the options name."""
        return open_cache(self.cache_settings)


def check_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A folder, there or not. An empty text would silently mean the current one."""
    if value is None:
        return None
    if "://" in value:
        raise click.BadParameter(f"{value!r} is no folder; results are kept in folders only: name one")
    path = Path(value).expanduser()
    if not value or (path.exists() and not path.is_dir()):
        raise click.BadParameter(f"{value!r} is {'a file' if value else 'empty'}; name a folder")
    return path


def check_size(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A number of bytes such as 5GB."""
    try:
        parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def check_address(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    """The `ReleaseAddress` of destination/name[@version-or-alias]."""
    from tasks.registry.address import split_destination

    try:
        return split_destination(value)
    except StoreError as error:
        meant = f"; did you mean ./{value}?" if value and Path(value.partition("@")[0]).is_dir() else ""
        raise click.BadParameter(f"{error}{meant}") from error


def check_name(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    """The `ReleaseAddress` of destination/name, where no single release can be meant."""
    address = check_address(context, parameter, value)
    if address.revision is not None:
        raise click.BadParameter(f"{value!r} names one release, and this command is about all: leave @... out")
    return address


def _short(path: Path) -> str:
    """A path of this user without their name."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
name_argument = click.argument("address", metavar="DEST", callback=check_name)
release_argument = click.argument("address", metavar="DEST[@VERSION]", callback=check_address)
_recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the recipe, e.g. weigh.alpha=0.7 or candidates.1.model=./news; may be repeated.",
)
_cache_option = click.option(
    "--cache",
    "cache_folder",
    metavar="DIR",
    callback=check_folder,
    help=f"Where results are kept between runs. [default: {_short(default_cache_folder())}]",
)
_cache_size_option = click.option(
    "--cache-size",
    metavar="SIZE",
    callback=check_size,
    default=CacheSettings().max_size,
    show_default=True,
    help="Most that is kept there; what was used least recently goes first.",
)


def output_option(description: str, default: str | None = None) -> Callable[[Command], Command]:
    """`--output DIR`, required unless there is a default."""
    return click.option(
        "--output",
        metavar="DIR",
        callback=check_folder,
        default=default,
        required=default is None,
        show_default=default is not None,
        help=description,
    )


def cache_command(command: Command) -> Command:
    """Hand a command the cache that its options name, as `cache`."""

    @functools.wraps(command)
    def run(*, cache_folder: Path | None, cache_size: str, **options: Any) -> None:
        cache = CacheSettings(folder=str(cache_folder) if cache_folder else None, max_size=cache_size)
        command(cache=cache, **options)

    return _cache_option(_cache_size_option(run))


def recipe_command(command: Command) -> Command:
    """Hand a command its `Request`, as the first argument."""

    @functools.wraps(command)
    def run(*, recipe: Path, overrides: tuple[str, ...], as_json: bool, cache: CacheSettings, **options: Any) -> None:
        command(Request(Console(as_json), recipe, overrides, cache), **options)

    return _recipe_argument(_set_option(json_option(cache_command(run))))
