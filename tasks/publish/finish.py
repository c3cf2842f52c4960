"""What is left to do once an alias has moved: tell the team's program, write the decision down.

A night that is killed right after the move leaves that undone; the next one does it, though it releases nothing. The
same holds for moves by hand (`cocktail promote`, `cocktail rollback`), which know no recipe and so no program.
"""

import logging
from datetime import datetime
from typing import Any

from tasks.cache import ResultCache
from tasks.errors import ReleaseError
from tasks.publish.command import Promotion, run_command
from tasks.publish.mirrors import complete_mirrors
from tasks.records import GateDecision
from tasks.registry.files import AliasState, Decision, format_time
from tasks.registry.releases import Registry
from tasks.registry.verification import find_incomplete_files
from tasks.settings import PublishSettings

logger = logging.getLogger(__name__)

_DECIDED = ("decision_fingerprint", "models", "evaluation", "gate")


def finish_release(registry: Registry, settings: PublishSettings, *, now: datetime, cache: ResultCache) -> None:
    """Do what an earlier night left undone: tell of what is live, write its decision down, complete the mirrors.

    Args:
        registry: The releases in the first destination.
        settings: The other destinations, the alias and the team's program.
        now: The time, for the decision.
        cache: Where files are kept that only the first destination has and another one lacks.
    """
    state = registry.read_alias(settings.alias)
    if state is None:
        return
    # One list, no bytes: without it, nights that release nothing would never say that readers get nothing whole.
    if problems := find_incomplete_files(registry, state.version):
        logger.warning(
            "publish: %s is live in %s and is not whole: %s; `cocktail rollback` takes it back, and `cocktail refresh "
            "--force` completes it where it makes the same files again",
            state.version, registry.location, "; ".join(problems),
        )  # fmt: skip
    if not was_told(registry, state):
        tell(registry, settings, state)
        record_live(registry, state, now)
        logger.info("publish: finished what was left undone when %s went live", state.version)
    if settings.to[1:]:
        complete_mirrors(registry, settings, state.version, {}, cache)


def tell(registry: Registry, settings: PublishSettings, state: AliasState) -> None:
    """Run the team's program, if there is one."""
    if settings.on_promote is not None:
        uri = registry.store.uri(registry.version_path(state.version))
        promotion = Promotion(registry.name, state.version, settings.alias, uri, state.manifest_sha256)
        run_command(settings.on_promote.command, settings.on_promote.timeout_seconds, promotion)


def was_told(registry: Registry, state: AliasState) -> bool:
    """Whether the live version's decision was written down since the alias moved: that comes after the program."""
    decision = registry.find_decision(_read_manifest(registry, state.version)["decision_fingerprint"])
    return decision is not None and decision.status == "published" and decision.created_at >= state.promoted_at


def record_live(registry: Registry, state: AliasState, now: datetime) -> None:
    """Write down the decision that made the live version, from its manifest: that exists only if the gate passed."""
    manifest = _read_manifest(registry, state.version)
    models = manifest["models"]
    decision = Decision(
        decision_fingerprint=manifest["decision_fingerprint"],
        model_fingerprint=manifest["model_fingerprint"],
        status="published",
        version=state.version,
        weights={model["name"]: model["weight"] for model in models if model["weight"] is not None},
        losses={model["name"]: model["loss"] for model in models if model["loss"] is not None},
        evaluation=manifest["evaluation"],
        gate=GateDecision(manifest["gate"]["passed"], tuple(manifest["gate"]["reasons"])),
        created_at=format_time(now),
    )
    registry.record_decision(decision)


def _read_manifest(registry: Registry, version: str) -> dict[str, Any]:
    """A manifest with all that a decision is written from; ReleaseError if it is not there."""
    manifest = registry.read_manifest(version)
    if missing := [key for key in _DECIDED if key not in manifest]:
        raise ReleaseError(
            f"{registry.location}: the manifest of {version} has no {', '.join(missing)}, so it was changed since it "
            "was written; `cocktail verify` tells more, and `cocktail rollback` takes the version back"
        )
    return manifest
