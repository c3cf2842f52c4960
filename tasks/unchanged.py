"""Whether folders still hold the models that were planned."""

from tasks.cache import ResultCache
from tasks.errors import InputError
from tasks.records import Checkpoint, FileDigest


def check_models_unchanged(cache: ResultCache, *checkpoints: Checkpoint) -> None:
    """Refuse models in folders that are no longer what was planned; what did not change costs a look at its times.

    Args:
        cache: Remembers digests.
        checkpoints: Their adapters are looked at, too; what lies elsewhere is not.

    Raises:
        InputError: files of a model changed or vanished since planning; all of them are named.
    """
    for part in (part for checkpoint in checkpoints for part in checkpoint.parts if part.uri.startswith("file:")):
        changed = [line for path, planned in part.files.items() if (line := _change(part, path, planned, cache))]
        if changed:
            listed = "\n".join(f"  - {line}" for line in changed)
            raise InputError(
                f"{part.name}: {part.folder} changed since it was planned:\n{listed}\n"
                "run again to plan with what is there now, and write models to a new folder while refreshes run"
            )


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
