"""Bring a resolved checkpoint to this machine and prove that it still is what was planned."""

import logging
from dataclasses import replace

from tasks.cache import ResultCache
from tasks.errors import InputError, NotFoundError, StoreError, TransientStoreError
from tasks.records import Checkpoint, FileDigest
from tasks.sources.fetch import Progress, fetch_files, link_folder
from tasks.sources.open import open_source

logger = logging.getLogger(__name__)


def download_checkpoint(checkpoint: Checkpoint, cache: ResultCache, report: Progress | None = None) -> Checkpoint:
    """Have every file on this machine with the content that it was planned with.

    Files of a folder stay where they are and cost a stat if they did not change. What is elsewhere is fetched into the
    cache, several files at a time, going on where an earlier attempt was broken off.

    Args:
        checkpoint: As it was planned; its adapter is brought here, too.
        cache: Keeps what is fetched.
        report: Told of progress in bytes, from any thread.

    Returns:
        The checkpoint with the URI at which this machine reads it; the adapter likewise.

    Raises:
        InputError: files of a folder changed or vanished since planning; all of them are named.
        NotFoundError: the place no longer has what was planned.
        StoreError: the place cannot be read, or gives other content than was planned.
    """
    own, *adapters = checkpoint.parts
    here = _prove_folder(own, cache) if own.uri.startswith("file:") else _fetch(own, cache, report)
    logger.info("download: %s is here, %d files, %.1f MB", here.name, len(here.files), here.size / 1e6)
    for adapter in adapters:
        # Small, and mostly here since planning: the model's bar of progress is not begun anew for it.
        here = replace(here, adapter=download_checkpoint(adapter, cache))
    return here


def _fetch(checkpoint: Checkpoint, cache: ResultCache, report: Progress | None) -> Checkpoint:
    try:
        source = open_source(checkpoint.uri, "model")
        files = fetch_files(source, checkpoint.files, cache, report, expected=checkpoint.files)
    except NotFoundError as error:
        raise NotFoundError(
            f"{checkpoint.name}: {checkpoint.model} is no longer what was planned ({checkpoint.uri}): {error}; it was "
            "moved or deleted, or access was taken away: run again to plan with what is there now"
        ) from error
    except TransientStoreError:
        raise
    except StoreError as error:
        raise StoreError(f"{checkpoint.name}: {checkpoint.model} cannot be fetched: {error}") from error
    return replace(checkpoint, uri=link_folder(files, cache).as_uri())


def _prove_folder(checkpoint: Checkpoint, cache: ResultCache) -> Checkpoint:
    files = checkpoint.files.items()
    changed = [line for path, planned in files if (line := _change(checkpoint, path, planned, cache))]
    if changed:
        listed = "\n".join(f"  - {line}" for line in changed)
        raise InputError(
            f"{checkpoint.name}: {checkpoint.folder} changed since it was planned:\n{listed}\n"
            "run again to plan with what is there now, and write models to a new folder while refreshes run"
        )
    return checkpoint


def _change(checkpoint: Checkpoint, path: str, planned: FileDigest, cache: ResultCache) -> str | None:
    """Say how a file differs from what was planned; None if it does not."""
    try:
        found = cache.digest_file(checkpoint.folder / path)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}"
    if found == planned:
        return None
    return (
        f"{path}: planned sha256 {planned.sha256[:12]}... ({planned.size} bytes), "
        f"found {found.sha256[:12]}... ({found.size} bytes)"
    )
