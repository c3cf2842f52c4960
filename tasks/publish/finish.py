"""What is left to do once an alias has moved: tell the team's program, write the decision down.

A night that is killed right after the move leaves that undone; the next one does it, though it releases nothing. The
same holds for moves by hand (`cocktail promote`, `cocktail rollback`), which know no recipe and so no program.
"""

import logging
from datetime import datetime

from tasks.cache import ResultCache
from tasks.publish.command import Promotion, run_command
from tasks.publish.mirrors import complete_mirrors
from tasks.records import GateDecision
from tasks.registry.files import AliasState, Decision, format_time
from tasks.registry.releases import Registry
from tasks.registry.verification import find_incomplete_files
from tasks.settings import PublishSettings

logger = logging.getLogger(__name__)


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
    _put_right(registry, settings.alias, state)
    if not was_told(registry, state):
        tell(registry, settings, state)
        record_live(registry, state, now)
        logger.info("publish: finished what was left undone when %s went live", state.version)
    if settings.to[1:]:
        complete_mirrors(registry, settings, state.version, {}, cache)


def _put_right(registry: Registry, alias: str, state: AliasState) -> None:
    """Make what readers of the alias get exactly the version again, where somebody changed it by hand (on the Hub)."""
    path, folder = registry.alias_path(alias), registry.version_path(state.version)
    if problems := registry.store.pointer_problems(path, folder):
        logger.warning("publish: %s is put right: %s", registry.store.uri(path), "; ".join(problems))
        registry.store.compare_and_swap(path, state.raw, state.raw, points_at=folder)


def tell(registry: Registry, settings: PublishSettings, state: AliasState) -> None:
    """Run the team's program, if there is one."""
    if settings.on_promote is not None:
        uri = registry.store.uri(registry.version_path(state.version))
        promotion = Promotion(registry.name, state.version, settings.alias, uri, state.manifest_sha256)
        run_command(settings.on_promote.command, settings.on_promote.timeout_seconds, promotion)


def was_told(registry: Registry, state: AliasState) -> bool:
    """Whether the live version's decision was written down since the alias moved: that comes after the program."""
    decision = registry.find_decision(registry.read_manifest(state.version)["decision_fingerprint"])
    return decision is not None and decision.status == "published" and decision.created_at >= state.promoted_at


def record_live(registry: Registry, state: AliasState, now: datetime) -> None:
    """Write down the decision that made the live version, from its manifest: that exists only if the gate passed."""
    manifest = registry.read_manifest(state.version)
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
