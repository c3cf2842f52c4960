"""Destinations after the first: copies of the truth, brought up to it at every release.

Any kind of place can be a copy of any other. Files come from this machine where this very night made them, else from
the truth; nothing is merged again.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile

from tasks.cache import ResultCache
from tasks.errors import ReleaseError, StoreError
from tasks.records import FileDigest
from tasks.references import Place, local_path, parse_reference
from tasks.registry.files import AliasEvent, AliasState, decode_manifest, manifest_files
from tasks.registry.promotion import find_predecessor
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.registry.retention import prune
from tasks.registry.verification import find_incomplete_files
from tasks.settings import PublishSettings
from tasks.sources.fetch import fetch_files
from tasks.sources.open import open_source
from tasks.stores.store import Content, content_of

logger = logging.getLogger(__name__)


def complete_mirrors(
    truth: Registry, settings: PublishSettings, version: str, contents: Mapping[str, Content], cache: ResultCache
) -> tuple[str, ...]:
    """Copy a version, and every alias with what is live and was live before, to every destination after the first.

    A destination that cannot be written does not take back a release that stands: it is logged, left out, and
    completed the next time. An alias that was moved by hand in a copy is set back to what the truth says. One that
    never came from this truth is left alone: its history and what it blocks stand nowhere else.

    Args:
        truth: The first destination.
        settings: Names all of them.
        version: What shall be there, live or not.
        contents: Files that this run has at hand; used wherever a release has a file of the same content.
        cache: Where files that have to be fetched from the truth are kept.

    Returns:
        URI of the version in each destination that has it now.
    """
    uris: list[str] = []
    for destination in settings.to[1:]:
        try:
            uris.append(_complete(truth, destination, settings, version, contents, cache))
        except (StoreError, ReleaseError) as error:
            logger.warning("publish: %s lags behind; the next run will complete it: %s", destination, error)
    return tuple(uris)


def _complete(
    truth: Registry,
    destination: str,
    settings: PublishSettings,
    version: str,
    contents: Mapping[str, Content],
    cache: ResultCache,
) -> str:
    if parse_reference(destination).place is Place.MLFLOW:
        # An optional extra: its module is imported by those alone who name such a destination.
        from tasks.registry.mlflow import register_release

        return register_release(destination, truth, version, settings.alias, truth.read_alias(settings.alias))
    mirror = open_registry(destination, truth.name)
    _copy_version(truth, mirror, version, contents, cache)
    for alias, state in truth.alias_states(strict=True).items():
        _copy_alias(truth, mirror, alias, state, contents, cache)
    prune(mirror, settings.keep, protected={version})
    return mirror.store.uri(mirror.version_path(version))


def _copy_alias(
    truth: Registry,
    mirror: Registry,
    alias: str,
    state: AliasState,
    contents: Mapping[str, Content],
    cache: ResultCache,
) -> None:
    """Bring an alias up to the truth: first what it points at and what a rollback would go to, then itself."""
    standing = mirror.read_alias(alias)
    if standing is not None:
        _compare_histories(mirror, alias, standing.history, state.history)
    for needed in (find_predecessor(truth, state), state.version):
        if needed is not None:
            _copy_version(truth, mirror, needed, contents, cache)
    if standing is None or standing.raw != state.raw:
        path, live = truth.alias_path(alias), truth.version_path(state.version)
        mirror.store.compare_and_swap(path, standing.raw if standing else None, state.raw, points_at=live)


def _compare_histories(
    mirror: Registry, alias: str, standing: Sequence[AliasEvent], truth: Sequence[AliasEvent]
) -> None:
    """Warn of what was done in a copy alone and is undone now.

    Raises:
        ReleaseError: the copy has a history of its own.
    """
    n_equal = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(truth, standing, strict=False))))
    if standing and not n_equal:
        raise ReleaseError(
            f"{mirror.location}: {alias} has a history of its own there, which begins on {standing[0].at} with "
            f"{standing[0].version}, and would be lost with all that it blocks; release to another place, or, if "
            "nobody needs it, delete that alias"
        )
    for event in standing[n_equal:]:
        logger.warning(
            "publish: %s: %s of %s by %s (%s) was done in this copy alone and is undone: do it in the first "
            "destination",
            mirror.location, event.action, event.version, event.by, event.reason,
        )  # fmt: skip


def _copy_version(
    truth: Registry, mirror: Registry, version: str, contents: Mapping[str, Content], cache: ResultCache
) -> None:
    """Copy a version unless its manifest, which is written last, is there already, and all that it names with it."""
    folder = truth.version_path(version)
    where = f"{folder}/{MANIFEST_FILE}"
    manifest = truth.store.read_bytes(where)
    files = manifest_files(decode_manifest(manifest, truth.store.uri(where)))
    if mirror.store.exists(where):
        if mirror.store.read_bytes(where) != manifest:
            raise ReleaseError(
                f"{mirror.store.uri(where)}: it is not the manifest of {truth.store.uri(folder)}; delete this copy of "
                "the version, and it is made again"
            )
        if not (problems := find_incomplete_files(mirror, version)):
            return
        logger.warning("publish: %s is completed: %s", mirror.store.uri(folder), "; ".join(problems))
    whole = _collect(truth.store.uri(folder), files, contents, cache)
    mirror.store.upload(folder, {**whole, MANIFEST_FILE: content_of(manifest)}, last=MANIFEST_FILE)


def _collect(
    uri: str, files: Mapping[str, FileDigest], contents: Mapping[str, Content], cache: ResultCache
) -> dict[str, Content]:
    """A source on this machine for every file of a release: what is at hand, and the rest as fetched and proven."""
    # What S3 alone has, of a model that several machines have merged, is fetched like the rest.
    at_hand = {content.digest: content for content in contents.values() if not isinstance(content.source, str)}
    missing = {path: digest for path, digest in files.items() if digest not in at_hand}
    fetched = fetch_files(open_source(_reference(uri)), missing, cache, expected=missing) if missing else {}
    return {
        path: Content(fetched[path].path, digest) if path in fetched else at_hand[digest]
        for path, digest in files.items()
    }


def _reference(uri: str) -> str:
    """What the sources are asked for: a path in place of `file://`."""
    return str(local_path(uri)) if uri.startswith("file://") else uri
