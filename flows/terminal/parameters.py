"""Arguments and options that commands share. What is wrong with one is told before the command begins (exit code 2)."""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

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
    settings: tuple[Path, ...]
    cache_settings: CacheSettings

    def read_recipe(self) -> Recipe:
        """The recipe with its settings files and overrides; RecipeError if it cannot be used."""
        from flows.recipe import read_recipe

        return read_recipe(self.recipe_path, self.overrides, self.settings)

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
        raise click.BadParameter(f"{value!r} is no folder of this machine; name one")
    path = Path(value).expanduser()
    if not value or (path.exists() and not path.is_dir()):
        raise click.BadParameter(f"{value!r} is {'a file' if value else 'empty'}; name a folder")
    return path


def check_caches(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """A folder, a prefix on S3, or one of each: what `CacheSettings` needs of them.

    A folder becomes absolute: what is deployed runs in another folder than the one that this was typed in.
    """
    places = [
        ("shared", value) if value.startswith("s3://") else ("folder", _absolute_folder(context, parameter, value))
        for value in values
    ]
    found = dict(places)
    if len(found) < len(places):
        raise click.BadParameter(f"found {', '.join(values)}; name at most one folder and one s3://bucket/prefix")
    try:
        CacheSettings.model_validate(found)
    except ValidationError as error:
        raise click.BadParameter(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
    return found


def _absolute_folder(context: click.Context, parameter: click.Parameter, value: str) -> str:
    folder = check_folder(context, parameter, value)
    return str(folder and folder.absolute())


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
_with_option = click.option(
    "--with",
    "settings",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Settings over the recipe, e.g. prod.yaml: a YAML file with the keys that differ; may be repeated.",
)
_cache_option = click.option(
    "--cache",
    "places",
    metavar="DIR_OR_S3",
    multiple=True,
    callback=check_caches,
    help="Where results are kept between runs: a folder; an s3://bucket/prefix that machines share, besides the "
    f"folder; or both, by two --cache. [default: {_short(default_cache_folder())}]",
)
_share_option = click.option(
    "--share-downloads", is_flag=True, help="Share downloaded model files by the --cache on S3, too."
)
_cache_size_option = click.option(
    "--cache-size",
    metavar="SIZE",
    callback=check_size,
    default=CacheSettings().max_size,
    show_default=True,
    help="Most that is kept in each; what was used least recently goes first.",
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


def page_option(command: Command) -> Command:
    """`--report FILE`, for the page of a night that releases nothing; its folder must be there."""
    return click.option(
        "--report",
        "page",
        metavar="FILE",
        callback=_check_page,
        type=click.Path(path_type=Path, dir_okay=False),
        help="Where a dry run writes its page (HTML).",
    )(command)


def _check_page(ctx: click.Context, parameter: click.Parameter, page: Path | None) -> Path | None:
    if page is not None and not page.absolute().parent.is_dir():
        raise click.UsageError(f"--report: there is no folder {page.absolute().parent}; make it, or choose another")
    return page and page.absolute()


def cache_command(command: Command) -> Command:
    """Hand a command the cache that its options name, as `cache`."""

    @functools.wraps(command)
    def run(*, places: dict[str, Any], share_downloads: bool, cache_size: str, **options: Any) -> None:
        if share_downloads and "shared" not in places:
            raise click.UsageError("--share-downloads: there is nowhere to share them; name --cache s3://bucket/prefix")
        command(cache=CacheSettings(**places, share_downloads=share_downloads, max_size=cache_size), **options)

    return _cache_option(_share_option(_cache_size_option(run)))


def recipe_command(command: Command) -> Command:
    """Hand a command its `Request`, as the first argument."""

    @functools.wraps(command)
    def run(
        *,
        recipe: Path,
        overrides: tuple[str, ...],
        settings: tuple[Path, ...],
        as_json: bool,
        cache: CacheSettings,
        **options: Any,
    ) -> None:
        command(Request(Console(as_json), recipe, overrides, settings, cache), **options)

    return _recipe_argument(_with_option(_set_option(json_option(cache_command(run)))))
