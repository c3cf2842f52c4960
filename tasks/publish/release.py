"""From a merged model that the gate let pass to a version in every destination, and the alias moved to it.

The order makes every moment safe to be killed in: the version appears whole, then the alias moves, then the team's
command is told, then the decision is written down, then the other destinations follow, then old versions go. Running
again does what is missing.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from tasks.cache import ResultCache
from tasks.errors import AliasConflictError, ReleaseError, StoreError
from tasks.licences import CARD_FILE
from tasks.night_records import RefreshReport
from tasks.publish.card import LICENCE_FILE, render_card, render_licences
from tasks.publish.finish import record_live, tell, was_told
from tasks.publish.lineage import read_lineage
from tasks.publish.lock import render_lock
from tasks.publish.manifest import build_manifest
from tasks.publish.mirrors import complete_mirrors
from tasks.publish.pages import page_of_release
from tasks.recipe import Recipe
from tasks.records import Release
from tasks.registry.files import (
    AliasState,
    Decision,
    encode_evaluation,
    encode_json,
    evaluation_path,
    format_time,
    manifest_files,
)
from tasks.registry.promotion import promote
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.registry.retention import prune
from tasks.registry.truth import check_is_truth
from tasks.registry.verification import find_damage
from tasks.settings import PublishSettings
from tasks.sources.fetch import fetch_files
from tasks.sources.open import open_source
from tasks.stores.store import Content, content_of
from tasks.summaries import summarise_evaluations

logger = logging.getLogger(__name__)

LOCK_FILE = "recipe.lock.yaml"


def publish_release(
    report: RefreshReport, settings: PublishSettings, *, now: datetime, by: str, cache: ResultCache
) -> Release:
    """Release a merged model and, with `promote: auto`, make it live.

    A model that was released before keeps its version: it is verified and, where files are missing, completed. Of two
    runs that finish together one moves the alias; the version of the other stays, complete and not live.

    Args:
        report: What the run found; its gate must have passed.
        settings: Where the release goes.
        now: The time, for names and histories; versions are ordered by sequence, not by it.
        by: Who releases, for the alias's history.
        cache: Where files are kept that only the first destination has and another one lacks.

    Raises:
        ReleaseError: the gate has not passed, a standing release of this model is damaged beyond completion, or the
            champion is in another destination than the first.
        AliasConflictError: the alias was moved since this run was planned, so the gate compared with the wrong model;
            the message says by whom.
        StoreError: the destination cannot be written. Those after the first only cause a warning; they are completed
            by the next run.
    """
    if not report.gate.passed:
        raise ReleaseError(f"the gate said no, so there is nothing to release: {'; '.join(report.gate.reasons)}")
    registry = open_registry(settings.to[0], report.recipe["name"])
    fingerprint = report.plan.model_fingerprint
    version = registry.find_version(fingerprint)
    state = registry.read_alias(settings.alias)
    _check_alias_stands(report, settings.alias, state, version)
    check_is_truth(registry, settings)

    is_new = version is None
    version = version or registry.name_version(fingerprint, now)
    waits = settings.promote == "manual" or registry.is_blocked(fingerprint)
    contents = collect_contents(report, registry.store.destination, cache) | page_of_release(
        report, settings, version, waits=waits
    )
    if is_new:
        _upload_new(registry, version, report, contents, now)
    else:
        _complete_standing(registry, version, contents)

    if settings.promote == "auto" and not registry.is_blocked(fingerprint):
        before, state = state, _go_live(registry, version, report, settings, state, now, by)
        if before != state or not was_told(registry, state):
            tell(registry, settings, state)
    live = state if state is not None and state.version == version else None
    registry.record_decision(_decision(report, now, "published" if live else "pending", version))
    if live and not was_told(registry, live):
        # An earlier question let this model through, in a night that was killed before it wrote that down.
        record_live(registry, live, now)

    mirrored = complete_mirrors(registry, settings, version, contents, cache)
    _prune(registry, settings.keep, version)
    uris = (registry.store.uri(registry.version_path(version)), *mirrored)
    sequence = registry.read_manifest(version)["sequence"]
    logger.info("publish: %s, sequence %d, live: %s", ", ".join(uris), sequence, live is not None)
    return Release(version, sequence, uris, registry.manifest_sha256(version), promoted=live is not None)


def record_rejection(report: RefreshReport, settings: PublishSettings, *, now: datetime) -> Decision:
    """Write down that the gate said no, so that the same question is not worked through again the next night.

    Raises:
        ReleaseError: the gate has passed.
    """
    if report.gate.passed:
        raise ReleaseError("the gate has passed, so there is no rejection to record; publish the release")
    decision = _decision(report, now, "rejected", None)
    open_registry(settings.to[0], report.recipe["name"]).record_decision(decision)
    return decision


def collect_contents(report: RefreshReport, destination: str, cache: ResultCache) -> dict[str, Content]:
    """Every file of the release that its lock file makes again: the model, the card, the lock, the evaluations.

    A merged model that is on S3, where several machines have made it, is copied there by S3 itself; for a destination
    of another kind its files are fetched into the cache.
    """
    recipe = Recipe.model_validate(report.recipe)
    merged = report.merged.checkpoint
    if merged.uri.startswith("file:"):
        contents = {path: Content(merged.folder / path, digest) for path, digest in merged.files.items()}
    elif destination.startswith("s3://"):
        contents = {path: Content(f"{merged.uri}/{path}", digest) for path, digest in merged.files.items()}
    else:
        fetched = fetch_files(open_source(merged.uri), merged.files, cache, expected=merged.files)
        contents = {path: Content(file.path, file.digest) for path, file in fetched.items()}
    lineage = read_lineage(recipe, report)
    notes = {CARD_FILE: render_card(recipe, report, lineage), LOCK_FILE: render_lock(report)}
    if (licences := render_licences(lineage)) is not None:
        notes[LICENCE_FILE] = licences
    contents |= {path: content_of(text.encode()) for path, text in notes.items()}
    # The champion's values stand in its own release; here they would make equal models' releases differ.
    released = {"merged", "base", *(candidate.name for candidate in report.plan.candidates)}
    for evaluation in report.evaluations:
        if evaluation.model in released:
            contents[evaluation_path(evaluation)] = content_of(encode_evaluation(evaluation))
    return contents


def _check_alias_stands(report: RefreshReport, alias: str, state: AliasState | None, version: str | None) -> None:
    planned, live = report.plan.champion_version, state.version if state else None
    # An earlier attempt of this very run may have moved it already.
    if live != planned and (version is None or live != version):
        winner = f"{state.promoted_by} moved it at {state.promoted_at}, and that stands" if state else "it was removed"
        raise AliasConflictError(
            f"{alias} points at {live or 'nothing'} now, but this run compared with {planned or 'nothing'}: {winner}; "
            "run again to compare with what is live"
        )


def _go_live(
    registry: Registry,
    version: str,
    report: RefreshReport,
    settings: PublishSettings,
    expected: AliasState | None,
    now: datetime,
    by: str,
) -> AliasState:
    try:
        return promote(registry, version, settings.alias, by=by, reason=_why(report), now=now, expected=expected)
    except AliasConflictError:
        current = registry.read_alias(settings.alias)
        if current is not None and current.version == version:
            return current  # Another run made the very same model live in the same moment.
        # Whoever was faster stands in the alias by now; the message says who.
        _check_alias_stands(report, settings.alias, current, version)
        raise


def _upload_new(
    registry: Registry, version: str, report: RefreshReport, contents: Mapping[str, Content], now: datetime
) -> None:
    recipe = Recipe.model_validate(report.recipe)
    manifest = build_manifest(
        recipe,
        report,
        read_lineage(recipe, report),
        version=version,
        sequence=registry.next_sequence(),
        files={path: content.digest for path, content in contents.items()},
        now=now,
    )
    whole = {**contents, MANIFEST_FILE: content_of(encode_json(manifest))}
    registry.store.upload(registry.version_path(version), whole, last=MANIFEST_FILE)


def _complete_standing(registry: Registry, version: str, contents: Mapping[str, Content]) -> None:
    """Write again what a standing release lost, from files with the very content that its manifest names."""
    if not find_damage(registry, version):
        return
    folder = registry.version_path(version)
    wanted = manifest_files(registry.read_manifest(version))
    manifest = content_of(registry.store.read_bytes(f"{folder}/{MANIFEST_FILE}"))
    same = {path: contents[path] for path, digest in wanted.items() if _has(contents, path, digest)}
    registry.store.upload(folder, {**same, MANIFEST_FILE: manifest}, last=MANIFEST_FILE)
    if problems := find_damage(registry, version):
        raise ReleaseError(
            f"{registry.store.uri(folder)}: this model was released before, and that release is damaged: "
            f"{'; '.join(problems)}; remove the folder if nothing points at it, then run again"
        )
    logger.warning("publish: completed the damaged release %s", version)


def _why(report: RefreshReport) -> str:
    """The alias's reason: short, since manifest and decision hold every rule's sentence."""
    n_rules = len(report.recipe.get("gate", {}).get("rules", []))
    return f"the gate passed: {n_rules} {'rule' if n_rules == 1 else 'rules'}"


def _prune(registry: Registry, keep: int, version: str) -> None:
    try:
        prune(registry, keep, protected={version})
    except (StoreError, ReleaseError) as error:
        # The release stands and is live; that old ones could not be removed must not make it a failure.
        logger.warning("publish: old versions could not be removed; the next release tries again: %s", error)


def _has(contents: Mapping[str, Content], path: str, digest: object) -> bool:
    return path in contents and contents[path].digest == digest


def _decision(
    report: RefreshReport, now: datetime, status: Literal["published", "rejected", "pending"], version: str | None
) -> Decision:
    return Decision(
        decision_fingerprint=report.plan.decision_fingerprint,
        model_fingerprint=report.plan.model_fingerprint,
        status=status,
        version=version,
        weights=dict(report.weights.weights),
        losses={score.candidate: score.loss for score in report.scores},
        evaluation=summarise_evaluations(report.evaluations),
        gate=report.gate,
        created_at=format_time(now),
    )
