"""Destinations after the first: copies of the truth, brought up to it at every release."""

import logging

from tasks.errors import ReleaseError, StoreError
from tasks.registry.files import manifest_files
from tasks.registry.promotion import prune
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.settings import PublishSettings
from tasks.stores.store import Content, Store, content_of

logger = logging.getLogger(__name__)


def complete_mirrors(truth: Registry, settings: PublishSettings, version: str) -> tuple[str, ...]:
    """Copy a version, the live one and the alias to every destination after the first.

    A destination that cannot be written does not take back a release that stands: it is logged, left out, and
    completed the next time.

    Returns:
        URI of the version in each destination that has it now.
    """
    uris: list[str] = []
    for destination in settings.to[1:]:
        try:
            mirror = open_registry(destination, truth.name)
            _complete(truth, mirror, settings, version)
            uris.append(mirror.store.uri(mirror.version_path(version)))
        except (StoreError, ReleaseError) as error:
            logger.warning("publish: %s lags behind; the next run will complete it: %s", destination, error)
    return tuple(uris)


def _complete(truth: Registry, mirror: Registry, settings: PublishSettings, version: str) -> None:
    state = truth.read_alias(settings.alias)
    for needed in dict.fromkeys((state.version, version) if state else (version,)):
        _copy_version(truth, mirror.store, needed)
    if state is not None:
        path = truth.alias_path(settings.alias)
        standing = mirror.read_alias(settings.alias)
        if standing is None or standing.raw != state.raw:
            mirror.store.compare_and_swap(path, standing.raw if standing else None, state.raw)
    prune(mirror, settings.keep, protected={version})


def _copy_version(truth: Registry, store: Store, version: str) -> None:
    """Copy a version unless its manifest, which is written last, is there already."""
    path = truth.version_path(version)
    if store.exists(f"{path}/{MANIFEST_FILE}"):
        return
    source = truth.store.local_folder(path)
    files = manifest_files(truth.read_manifest(version))
    contents = {name: Content(source / name, digest) for name, digest in files.items()}
    contents[MANIFEST_FILE] = content_of(truth.store.read_bytes(f"{path}/{MANIFEST_FILE}"))
    store.upload(path, contents, last=MANIFEST_FILE)
