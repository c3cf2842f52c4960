"""The commands on releases: list, verify, explain, promote, roll back, unblock. DEST is destination/name."""

import getpass
import sys
from datetime import UTC, datetime
from typing import Any

import click

from flows.console import EXIT_FAILED, Console

DEFAULT_ALIAS = "champion"

destination_argument = click.argument("destination", metavar="DEST")
alias_option = click.option("--alias", default=DEFAULT_ALIAS, show_default=True, help="The name that readers follow.")
reason_option = click.option("--reason", default="by hand", show_default=True, help="Why; kept in the alias's history.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command()
@destination_argument
@json_option
def releases(destination: str, as_json: bool) -> None:
    """List the versions of DEST, e.g. ./releases/assistant, the oldest first."""
    from flows.registry import list_releases
    from flows.tables import releases_table
    from tasks.releases import open_registry, split_destination

    address = split_destination(destination)
    rows = list_releases(open_registry(address.destination, address.name))
    Console(as_json).result({"releases": rows}, releases_table(rows))


@click.command()
@destination_argument
@json_option
def verify(destination: str, as_json: bool) -> None:
    """Hash every file of DEST[@version-or-alias] again and compare with its manifest; exit code 1 on a mismatch."""
    from tasks.releases import open_registry, split_destination
    from tasks.verification import verify_release

    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    version = registry.resolve(address.revision or DEFAULT_ALIAS)
    problems = verify_release(registry, address.revision or DEFAULT_ALIAS)
    lines = problems or [f"{version}: every file is as its manifest says"]
    Console(as_json).result({"version": version, "ok": not problems, "problems": problems}, *lines)
    sys.exit(EXIT_FAILED if problems else 0)


@click.command()
@destination_argument
@json_option
def explain(destination: str, as_json: bool) -> None:
    """Why DEST[@version] is live, waits or was rejected; without a version, what every night decided."""
    from flows.registry import explain_release
    from flows.tables import explanation_lines
    from tasks.releases import open_registry, split_destination

    address = split_destination(destination)
    explanation = explain_release(open_registry(address.destination, address.name), address.revision)
    Console(as_json).result(explanation, *explanation_lines(explanation))


@click.command()
@destination_argument
@click.argument("version")
@alias_option
@reason_option
@json_option
def promote(destination: str, version: str, alias: str, reason: str, as_json: bool) -> None:
    """Point the alias of DEST at VERSION."""
    from tasks.promotion import promote as promote_version
    from tasks.releases import open_registry, split_destination

    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    expected = registry.read_alias(alias)
    state = promote_version(registry, version, alias, expected=expected, **_who_and_why(reason))
    Console(as_json).result({"alias": alias, "version": state.version}, f"{alias} points at {state.version}")


@click.command()
@destination_argument
@click.option("--to", metavar="VERSION", help="Version that goes live (default: the one that was live before).")
@alias_option
@reason_option
@json_option
def rollback(destination: str, to: str | None, alias: str, reason: str, as_json: bool) -> None:
    """Take the live version of DEST back. It is blocked: no refresh brings it live again until it is unblocked."""
    from tasks.promotion import rollback as roll_back
    from tasks.releases import open_registry, split_destination

    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    state = roll_back(registry, alias, to=to, **_who_and_why(reason))
    blocked = state.blocked[-1].version
    message = f"{alias} points at {state.version}; {blocked} is blocked"
    Console(as_json).result({"alias": alias, "version": state.version, "blocked": blocked}, message)


@click.command()
@destination_argument
@click.argument("version")
@reason_option
@json_option
def unblock(destination: str, version: str, reason: str, as_json: bool) -> None:
    """Let VERSION of DEST go live again."""
    from tasks.promotion import unblock as unblock_version
    from tasks.releases import open_registry, split_destination

    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    aliases = unblock_version(registry, version, **_who_and_why(reason))
    message = f"{version} may go live again ({', '.join(aliases)})"
    Console(as_json).result({"version": version, "aliases": aliases}, message)


def _who_and_why(reason: str) -> dict[str, Any]:
    return {"by": getpass.getuser(), "reason": reason, "now": datetime.now(UTC)}


COMMANDS = (releases, verify, explain, promote, rollback, unblock)
