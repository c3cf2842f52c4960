"""Bring a resolved checkpoint to this machine and prove that it still is what was planned."""

import logging
from dataclasses import replace

from tasks.cache import ResultCache
from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.records import Checkpoint
from tasks.sources.fetch import Progress, fetch_files, link_folder
from tasks.sources.open import open_source
from tasks.unchanged import check_models_unchanged

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
    if own.uri.startswith("file:"):
        check_models_unchanged(cache, own)
        here = own
    else:
        here = _fetch(own, cache, report)
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
