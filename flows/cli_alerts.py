"""The command that makes the alerts on the Prefect server."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from flows.terminal.console import Console
from flows.terminal.parameters import check_name, json_option
from tasks.references import make_absolute

MAX_NIGHTS = 365


def _check_blocks(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [text for text in value if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", text)]
    if wrong:
        raise click.BadParameter(f"{', '.join(wrong)}: write a block as type/name, such as slack-webhook/team")
    return tuple(dict.fromkeys(value))


def _check_model(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """destination/name as it stands in events: a folder's path as a recipe in this folder would have it."""
    if value is None:
        return None
    address = check_name(context, parameter, value)
    is_folder = "://" not in address.destination
    destination = make_absolute(address.destination, Path.cwd()) if is_folder else address.destination
    return f"{destination.rstrip('/')}/{address.name}"


@click.command()
@click.option(
    "--notify",
    "blocks",
    multiple=True,
    metavar="TYPE/NAME",
    callback=_check_blocks,
    help="A Prefect block that gets the messages, such as slack-webhook/team or sendgrid-email/team; one of type "
    "webhook gets JSON. May be repeated.",
)
@click.option(
    "--model", metavar="DEST", callback=_check_model, help="Watch one model (destination/name). [default: all]"
)
@click.option(
    "--deployment", metavar="NAME", help="With --model, the deployment that refreshes it. [default: the model's name]"
)
@click.option(
    "--nights",
    type=click.IntRange(1, MAX_NIGHTS),
    default=3,
    show_default=True,
    help="Tell when the inputs have been the same for so many nights, and again after as many.",
)
@click.option(
    "--late",
    "late_minutes",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Tell when a run has been late for so many minutes.",
)
@click.option(
    "--silent",
    "silent_minutes",
    type=click.IntRange(2),
    default=9,
    show_default=True,
    help="Take a run without a sign of life for so many minutes for crashed; at least three heartbeats of 180 s.",
)
@click.option("--print", "only_print", is_flag=True, help="Print them as YAML, for `prefect automation create`.")
@json_option
def alerts(
    blocks: tuple[str, ...], model: str | None, deployment: str | None, only_print: bool, as_json: bool, **times: int
) -> None:
    """Make alerts: failed, crashed, rejected, unchanged, late, weights that jumped, a version that waits.

    They are automations on the Prefect server that Prefect's settings name (PREFECT_API_URL or a profile). Giving the
    command again changes them. A run that falls silent is set to crashed.
    """
    if not blocks:
        raise click.UsageError("who is told? --notify slack-webhook/NAME names a block of the Prefect server")
    if deployment and not model:
        raise click.UsageError("--deployment goes with --model: without it the runs of all deployments are watched")
    from flows.alert_rules import AlertSettings

    settings = AlertSettings(model, deployment or (model and model.rpartition("/")[2]), **times)
    console = Console(as_json)
    if only_print:
        _print(console, settings, blocks)
    else:
        _apply(console, settings, blocks)


def _print(console: Console, settings: Any, blocks: tuple[str, ...]) -> None:
    from flows.alerts import as_plain, as_yaml, build_automations, parse_block

    # Ids are known to the server only, and files like this are kept where there is none.
    ids = {parse_block(text): UUID(int=number) for number, text in enumerate(blocks, start=1)}
    plain = as_plain(build_automations(settings, ids))
    notes = [f"# {id} stands for the block {block}: `prefect block ls` shows its id." for block, id in ids.items()]
    console.result(plain, "\n".join([*notes, as_yaml(plain)]))


def _apply(console: Console, settings: Any, blocks: tuple[str, ...]) -> None:
    from flows.terminal.server import require_server

    require_server("alerts live")
    from flows.alerts import apply_automations, build_automations, find_blocks, parse_block

    found = find_blocks([parse_block(text) for text in blocks])
    applied = apply_automations(build_automations(settings, found))
    data = [{"name": each.name, "id": each.id, "change": each.change} for each in applied]
    told = [f"{each.change} {each.name}" for each in applied]
    console.result({"automations": data}, *told, f"told: {', '.join(blocks)}")
