"""Flows on the registry: take the live version back, or send one live. Metadata only: a second, whatever the size."""

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from tasks.registry.promotion import promote as promote_version
from tasks.registry.promotion import rollback as roll_back
from tasks.registry.releases import open_registry, split_destination


@flow(name="rollback", flow_run_name="rollback {destination}")
def rollback(destination: str, reason: str, to: str | None = None, alias: str = "champion") -> str:
    """Take the live version back and block it, so that no refresh brings it live again.

    Args:
        destination: destination/name, e.g. /models/assistant.
        reason: Why; kept in the alias's history.
        to: Version that goes live; left out: the one that was live before.
        alias: The name that readers follow.

    Returns:
        The version that is live now.
    """
    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    state = roll_back(registry, alias, to=to, by=f"flow run {flow_run.name}", reason=reason, now=datetime.now(UTC))
    return state.version


@flow(name="promote", flow_run_name="promote {version} of {destination}")
def promote(destination: str, version: str, reason: str, alias: str = "champion") -> str:
    """Point the alias at a version, e.g. one that waits for approval.

    Args:
        destination: destination/name, e.g. /models/assistant.
        version: The version that goes live.
        reason: Why; kept in the alias's history.
        alias: The name that readers follow.

    Returns:
        The version that is live now.
    """
    address = split_destination(destination)
    registry = open_registry(address.destination, address.name)
    by, now = f"flow run {flow_run.name}", datetime.now(UTC)
    expected = registry.read_alias(alias)
    return promote_version(registry, version, alias, by=by, reason=reason, now=now, expected=expected).version
