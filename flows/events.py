"""What the rest of a platform can react to: Prefect events on the releases of a model."""

from typing import Literal

from prefect.events import emit_event

from tasks.recipe import Recipe
from tasks.records import Release

What = Literal["promoted", "rolled-back"]


def announce_release(recipe: Recipe, release: Release) -> None:
    """Say that a night's release went live; nothing is said of one that waits for a person."""
    if recipe.publish is not None and release.promoted:
        destination = f"{recipe.publish.to[0]}/{recipe.name}"
        announce("promoted", destination, recipe.publish.alias, release.version, "the gate passed")


def announce(what: What, destination: str, alias: str, version: str, reason: str) -> None:
    """Emit `lm-cocktail.release.<what>`: an alias has moved.

    Args:
        what: `promoted` or `rolled-back`.
        destination: destination/name, e.g. `s3://models/assistant`; names the resource
            `lm-cocktail.model.<destination/name>`.
        alias: The alias that moved.
        version: The version it points at now.
        reason: Why.
    """
    emit_event(
        event=f"lm-cocktail.release.{what}",
        resource={
            "prefect.resource.id": f"lm-cocktail.model.{destination}",
            "prefect.resource.name": destination.rpartition("/")[2],
        },
        payload={"alias": alias, "version": version, "destination": destination, "reason": reason},
    )
