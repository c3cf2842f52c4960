"""Bring a resolved checkpoint to this machine and prove that it still is what was planned.

The files of a folder are there already; what is done for them is the proof. References that lead elsewhere get their
transfer here.
"""

import logging

from tasks.cache import ResultCache
from tasks.errors import InputError
from tasks.records import Checkpoint, FileDigest

logger = logging.getLogger(__name__)


def download_checkpoint(checkpoint: Checkpoint, cache: ResultCache) -> Checkpoint:
    """Check every file against the digest it was planned with; files that did not change cost a stat.

    Returns:
        The checkpoint with the URI at which this machine reads it.

    Raises:
        InputError: files changed or vanished since planning; all of them are named.
    """
    files = checkpoint.files.items()
    changed = [line for path, planned in files if (line := _change(checkpoint, path, planned, cache))]
    if changed:
        listed = "\n".join(f"  - {line}" for line in changed)
        raise InputError(
            f"{checkpoint.name}: {checkpoint.folder} changed since it was planned:\n{listed}\n"
            "run again to plan with what is there now, and write models to a new folder while refreshes run"
        )
    logger.info("download: %s is here, %d files, %.1f MB", checkpoint.name, len(files), checkpoint.size / 1e6)
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
