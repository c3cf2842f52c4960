"""The `cocktail` command.

With `--json`, stdout holds one JSON object and nothing else; logs and progress go to stderr. Exit codes: 0 done
(published, or unchanged), 1 failed, 2 wrong usage or recipe, 3 the gate said no. Commands import what they run when
they run, so that `cocktail merge` starts without torch and `--help` without most else.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any, Literal, cast

import click

from flows import cli_alerts, cli_deploy, cli_releases
from flows.terminal.console import EXIT_FAILED, EXIT_USAGE, Console, fail_clearly, set_up_logging
from flows.terminal.parameters import Request, cache_command, json_option, output_option, page_option, recipe_command
from tasks.settings import CacheSettings, ConnectionSettings

EXIT_REJECTED = 3

_SECTIONS = {
    "Begin": ("demo", "init", "schema"),
    "Work on a recipe": ("plan", "score", "merge", "evaluate", "refresh"),
    "Run it by itself": ("deploy", "alerts"),
    "Look after releases": ("releases", "verify", "explain", "promote", "rollback", "unblock"),
}


class _Commands(click.Group):
    """Commands in the order of use, and the project's errors as exit codes."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        with fail_clearly():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Exit codes: 0 done, {EXIT_FAILED} failed, {EXIT_USAGE} wrong usage or recipe, {EXIT_REJECTED} the gate "
    "said no.",
)
@click.version_option(package_name="lm-cocktail-flows")
@click.option("-v", "--verbose", is_flag=True, help="More lines in the log.")
def cocktail(verbose: bool) -> None:
    """Refresh a language model by merging fine-tuned models of one base.

    A recipe (YAML) says which models, which examples, how to weigh, how to merge, what to check and where to publish.
    Start with `cocktail demo`, then `cocktail init my.yaml`, `cocktail plan my.yaml`, `cocktail refresh my.yaml`.
    """
    set_up_logging(verbose)


@cocktail.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("recipe.yaml"))
@click.option("--force", is_flag=True, help="Write over an existing file.")
@json_option
def init(file: Path, force: bool, as_json: bool) -> None:
    """Write a commented recipe to start from.

    It is written to FILE (recipe.yaml).
    """
    from flows.recipe import recipe_template

    template = recipe_template()
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template)
    except FileExistsError as error:
        raise click.UsageError(f"{file} exists; choose another name, or --force to write over it") from error
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}; choose another place") from error
    Console(as_json).result({"file": str(file)}, f"wrote {file}; next: cocktail plan {file}")


@cocktail.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the recipe's JSON schema, for editors."""
    from flows.recipe import Recipe

    Console(as_json=True).result(Recipe.model_json_schema())


@cocktail.command()
@recipe_command
def plan(request: Request) -> None:
    """Check a recipe without reading weights: what would be merged, and what is wrong.

    Models are resolved and compared with their base, data is read, places are tried. All that is wrong is listed at
    once. Nothing is written outside the cache.
    """
    from flows import direct
    from flows.terminal.tables import plan_parts
    from tasks.plan.plan import plan_refresh
    from tasks.records import to_json

    cache = request.open_cache()
    with request.connected_recipe() as recipe:
        planned, free_bytes = plan_refresh(recipe, cache), direct.free_bytes(recipe, cache)
        cached = direct.count_cached(recipe, planned, cache)
    data = to_json(planned) | {"free_bytes": free_bytes, "cached": {name: n for name, (n, _) in cached.items()}}
    request.console.result(data, *plan_parts(recipe, planned, free_bytes, cached))


@cocktail.command()
@recipe_command
def score(request: Request) -> None:
    """Measure the candidates' losses on the examples, and the weights that follow.

    With how far to trust them: intervals, other temperatures, simpler choices, warnings.
    """
    from flows import direct
    from flows.terminal.weights import weights_json, weights_parts

    cache = request.open_cache()
    with request.connected_recipe() as recipe, request.console.progress() as progress:
        planned, candidates = direct.prepare(recipe, cache, progress=progress)
        _, _, scores, weights = direct.score_candidates(recipe, planned, candidates, cache, progress)
    request.console.result(weights_json(scores, weights), *weights_parts(scores, weights, with_temperatures=True))


@cocktail.command()
@recipe_command
@output_option("Where the merged model lands: a new folder, or an empty one.")
@click.option(
    "--health",
    type=click.Choice(["sample", "exact", "none"]),
    default="sample",
    show_default=True,
    help="Compare candidates with the base and each other: a sample of the elements, all of them, or not at all.",
)
def merge(request: Request, output: Path, health: Literal["sample", "exact", "none"]) -> None:
    """Weigh and merge only, into a folder."""
    from flows import direct
    from flows.terminal.health import health_parts
    from flows.terminal.weights import weights_json, weights_parts
    from tasks.records import to_json

    cache = request.open_cache()
    with request.connected_recipe() as recipe, request.console.progress() as progress:
        planned, candidates = direct.prepare(recipe, cache, output, progress)
        planned, candidates, scores, weights = direct.score_candidates(recipe, planned, candidates, cache, progress)
        merged = direct.merge_candidates(recipe, planned, candidates, weights, output, cache, progress, health)
    data = weights_json(scores, weights) | {"output": str(output), "merged": to_json(merged)}
    tables = [*weights_parts(scores, weights), *health_parts(merged.health)]
    request.console.result(data, *tables, f"merged model: {output}")


@cocktail.command()
@recipe_command
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def evaluate(request: Request, models: tuple[str, ...]) -> None:
    """Run the recipe's evaluation tasks on any models.

    A MODEL is org/name[@revision] on the Hub, s3://bucket/prefix, release:DEST@version-or-alias, or a path that
    begins with / or ./.
    """
    from flows import direct
    from flows.terminal.tables import evaluations_json, evaluations_table

    cache = request.open_cache()
    with request.connected_recipe() as recipe, request.console.progress() as progress:
        checkpoints, data = direct.resolve_models(recipe, models, cache, progress)
        evaluations = direct.evaluate_models(recipe, data, checkpoints, cache, progress)
    request.console.result({"evaluation": evaluations_json(evaluations)}, evaluations_table(evaluations))


@cocktail.command()
@recipe_command
@click.option("--force", is_flag=True, help="Do the work even if the same inputs were decided before.")
@click.option("--dry-run", is_flag=True, help="Stop before publishing; nothing is written to a destination.")
@page_option
def refresh(request: Request, force: bool, dry_run: bool, page: Path | None) -> None:
    """Run the whole pipeline: score, weigh, merge, evaluate, gate, publish.

    It runs as a Prefect flow, on the server that Prefect's settings name (PREFECT_API_URL or a profile), else on a
    temporary one. Inputs that were decided before end at once as unchanged.
    """
    if page is not None and not dry_run:
        raise click.UsageError("--report is for dry runs; a release holds report.html, a rejection tells where its is")
    recipe = request.read_recipe()
    _refresh(request.console, recipe, request.cache_settings, force=force, dry_run=dry_run, page=page)


@cocktail.command()
@output_option("Where to release.", default="releases")
@click.option(
    "--family",
    type=click.Choice(["decoder", "encoder"]),
    default="decoder",
    show_default=True,
    help="decoder: a small Llama that classifies; encoder: a small sentence embedder.",
)
@json_option
@cache_command
def demo(output: Path, family: str, as_json: bool, cache: CacheSettings) -> None:
    """Refresh on the bundled real models; takes a minute."""
    from flows.recipe import demo_recipe_path, read_recipe

    path = demo_recipe_path(family)
    # JSON is YAML, whatever characters the path has.
    recipe = read_recipe(path, [f"publish.to={json.dumps([str(output.resolve())])}"])
    _refresh(Console(as_json), recipe, cache, force=False, dry_run=False)


def _refresh(
    console: Console, recipe: Any, cache: CacheSettings, *, force: bool, dry_run: bool, page: Path | None = None
) -> None:
    """Run the flow, print its result, and leave with the code that says how it ended."""
    from flows.run import check_destination
    from flows.terminal.server import prepare_prefect
    from flows.terminal.tables import refresh_parts
    from tasks.cache import open_cache
    from tasks.plan.plan import plan_refresh

    # The flow plans as well. But planning takes less time than Prefect does to start, and what cannot succeed should
    # end with one message.
    check_destination(recipe, dry_run)
    # Who a block says that we are on S3 can only be asked of Prefect: then the flow alone plans.
    if recipe.connections == ConnectionSettings():
        plan_refresh(recipe, open_cache(cache))
    prepare_prefect()
    from flows.refresh import refresh as refresh_flow

    # Called as a function, a flow returns the data of its final state.
    where = str(page) if page else None
    result = cast(dict[str, Any], refresh_flow(recipe, force=force, dry_run=dry_run, cache=cache, page=where))
    console.result(result, *refresh_parts(result))
    sys.exit(EXIT_REJECTED if result["status"] == "rejected" else 0)


for _command in (cli_deploy.deploy, cli_alerts.alerts, *cli_releases.COMMANDS):
    cocktail.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows "?" for the bars of a table; that is no reason to fail.
            stream.reconfigure(errors="replace")
    cocktail(prog_name="cocktail")
