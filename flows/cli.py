"""The `cocktail` command.

With `--json`, stdout holds one JSON object and nothing else; logs and progress go to stderr. Exit codes: 0 done
(published, or unchanged), 1 failed, 2 wrong usage or recipe, 3 the gate said no. Commands import what they run when
they run, so that `cocktail merge` starts as fast as torch does and `--help` faster.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from flows.console import Console, fail_clearly, hand_logs_to_prefect

EXIT_REJECTED = 3

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the recipe, e.g. --set weigh.alpha=0.7."
)
cache_option = click.option(
    "--cache", "cache_folder", type=click.Path(path_type=Path), help="Cache folder (default: in your cache folder)."
)
cache_size_option = click.option("--cache-size", default="50GB", show_default=True, help="Largest size of the cache.")
destination_argument = click.argument("destination", metavar="DEST")


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that reads a recipe and computes."""
    for option in (cache_size_option, cache_option, json_option, set_option):
        command = option(command)
    return recipe_argument(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lm-cocktail-flows")
@click.option("-v", "--verbose", is_flag=True, help="More lines in the log.")
def cocktail(verbose: bool) -> None:
    """Refresh a language model by merging fine-tuned models of one base.

    A recipe (YAML) says which models, which examples, how to weigh, how to merge, what to check and where to publish.
    Start with `cocktail demo`, then `cocktail init my.yaml`, `cocktail plan my.yaml`, `cocktail refresh my.yaml`.
    """
    Console.set_up_logging(verbose)


@cocktail.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("recipe.yaml"))
@click.option("--force", is_flag=True, help="Write over an existing file.")
def init(file: Path, force: bool) -> None:
    """Write a commented recipe to start from to FILE (recipe.yaml)."""
    from flows.recipe import recipe_template

    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; choose another name, or --force to write over it")
    file.write_text(recipe_template(), encoding="utf-8")
    click.echo(f"wrote {file}; next: cocktail plan {file}")


@cocktail.command()
def schema() -> None:
    """Print the recipe's JSON schema, for editors."""
    from flows.recipe import Recipe

    Console(as_json=True).result(Recipe.model_json_schema())


@cocktail.command()
@common_options
def plan(recipe: Path, overrides: tuple[str, ...], as_json: bool, cache_folder: Path | None, cache_size: str) -> None:
    """Check a recipe from headers alone: what would be read, merged and written, and what is wrong."""
    from flows.recipe import read_recipe
    from flows.tables import plan_table
    from tasks.plan.plan import plan_refresh
    from tasks.records import to_json

    console = Console(as_json)
    planned = plan_refresh(read_recipe(recipe, overrides), console.cache(cache_folder, cache_size))
    console.result(to_json(planned), plan_table(planned))


@cocktail.command()
@common_options
def score(recipe: Path, overrides: tuple[str, ...], as_json: bool, cache_folder: Path | None, cache_size: str) -> None:
    """Losses of the candidates on the examples, and the weights that follow."""
    from flows import direct
    from flows.recipe import read_recipe
    from flows.tables import weights_json, weights_table

    console, parsed = Console(as_json), read_recipe(recipe, overrides)
    cache = console.cache(cache_folder, cache_size)
    planned, candidates = direct.prepare(parsed, cache)
    with console.progress() as progress:
        _, _, scores, weights = direct.score_candidates(parsed, planned, candidates, cache, progress)
    console.result(weights_json(scores, weights), weights_table(scores, weights))


@cocktail.command()
@common_options
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the merged model.")
def merge(
    recipe: Path,
    overrides: tuple[str, ...],
    as_json: bool,
    cache_folder: Path | None,
    cache_size: str,
    output: Path,
) -> None:
    """Weigh and merge only: the merged model lands in --output."""
    from flows import direct
    from flows.recipe import read_recipe
    from flows.tables import weights_json, weights_table
    from tasks.records import to_json

    console, parsed = Console(as_json), read_recipe(recipe, overrides)
    cache = console.cache(cache_folder, cache_size)
    planned, candidates = direct.prepare(parsed, cache)
    with console.progress() as progress:
        planned, candidates, scores, weights = direct.score_candidates(parsed, planned, candidates, cache, progress)
        merged = direct.merge_candidates(parsed, planned, candidates, weights, output, progress)
    result = weights_json(scores, weights) | {"output": str(output), "merged": to_json(merged)}
    console.result(result, weights_table(scores, weights), f"merged model: {output}")


@cocktail.command()
@common_options
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def evaluate(
    recipe: Path,
    models: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    cache_folder: Path | None,
    cache_size: str,
) -> None:
    """Run the recipe's evaluation tasks on any models, given by reference or path."""
    from flows import direct
    from flows.recipe import read_recipe
    from flows.tables import evaluations_json, evaluations_table

    console, parsed = Console(as_json), read_recipe(recipe, overrides)
    cache = console.cache(cache_folder, cache_size)
    checkpoints, data = direct.resolve_models(parsed, models, cache)
    with console.progress() as progress:
        evaluations = direct.evaluate_models(parsed, data, checkpoints, cache, progress)
    console.result({"evaluation": evaluations_json(evaluations)}, evaluations_table(evaluations))


@cocktail.command()
@common_options
@click.option("--force", is_flag=True, help="Do the work even if the same inputs were decided before.")
@click.option("--dry-run", is_flag=True, help="Stop before publishing; nothing is written to a destination.")
def refresh(
    recipe: Path,
    overrides: tuple[str, ...],
    as_json: bool,
    cache_folder: Path | None,
    cache_size: str,
    force: bool,
    dry_run: bool,
) -> None:
    """The whole pipeline: score, weigh, merge, evaluate, gate and publish, as a Prefect flow."""
    from flows.recipe import read_recipe

    parsed = read_recipe(recipe, overrides)
    _run_refresh(Console(as_json), parsed, cache_folder, cache_size, force=force, dry_run=dry_run)


@cocktail.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("releases"), show_default=True, help="Where to release."
)
@click.option(
    "--family",
    type=click.Choice(["decoder", "encoder"]),
    default="decoder",
    show_default=True,
    help="decoder: a small Llama that classifies; encoder: a small sentence embedder.",
)
@json_option
@cache_option
@cache_size_option
def demo(output: Path, family: str, as_json: bool, cache_folder: Path | None, cache_size: str) -> None:
    """Refresh on the bundled real models: losses, weights, before and after, and where the release is."""
    from flows.recipe import demo_recipe_path, read_recipe

    path = demo_recipe_path(family)
    parsed = read_recipe(path, [f"publish.to=[{str(output.resolve())!r}]"])
    _run_refresh(Console(as_json), parsed, cache_folder, cache_size, force=False, dry_run=False)


def _run_refresh(
    console: Console, recipe: Any, cache_folder: Path | None, cache_size: str, *, force: bool, dry_run: bool
) -> None:
    """Run the flow, print its result, and leave with the code that says how it ended."""
    from flows.tables import refresh_summary
    from tasks.settings import CacheSettings

    hand_logs_to_prefect()
    from flows.refresh import refresh as refresh_flow

    cache = CacheSettings(folder=str(cache_folder) if cache_folder else None, max_size=cache_size)
    # Called as a function, a flow returns the data of its final state.
    result = cast(dict[str, Any], refresh_flow(recipe, force=force, dry_run=dry_run, cache=cache))
    console.result(result, *refresh_summary(result))
    sys.exit(EXIT_REJECTED if result["status"] == "rejected" else 0)


def main() -> None:
    """Entry point of the console script."""
    from flows.cli_releases import COMMANDS

    for command in COMMANDS:
        cocktail.add_command(command)
    with fail_clearly():
        cocktail(prog_name="cocktail")
