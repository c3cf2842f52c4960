"""From a reference in a recipe to a model of which every file is known by its content."""

from dataclasses import replace
from pathlib import Path

from tasks.cache import ResultCache
from tasks.checkpoint import describe_folder, list_model_files
from tasks.errors import CheckpointError, StoreError
from tasks.records import Checkpoint
from tasks.references import Place, parse_reference
from tasks.registry.releases import open_registry, split_destination

_DEFAULT_ALIAS = "champion"


def resolve_checkpoint(name: str, reference_text: str, pinned_digest: str | None, cache: ResultCache) -> Checkpoint:
    """Find a model and the digest of each of its files.

    Args:
        name: What the recipe calls it.
        reference_text: A folder or `release:DESTINATION/NAME@version-or-alias`, paths absolute.
        pinned_digest: Content it must have (`sha256:...`), from a lock file; None for any.
        cache: Remembers digests of files that did not change.

    Raises:
        CheckpointError: there is no checkpoint, or its content is not the pinned one.
        StoreError: the reference leads where this version cannot read, or to no release.
    """
    reference = parse_reference(reference_text)
    if reference.place is Place.FOLDER:
        checkpoint = _describe_local(name, reference_text, Path(reference.location), cache)
    elif reference.place is Place.RELEASE:
        address = split_destination(reference.location)
        registry = open_registry(address.destination, address.name)
        version = registry.resolve(reference.revision or _DEFAULT_ALIAS)
        checkpoint = replace(registry.checkpoint(version, name), model=reference_text)
    else:
        raise StoreError(_cannot_read(reference_text))
    found = f"sha256:{checkpoint.digest}"
    if pinned_digest is not None and f"sha256:{pinned_digest.removeprefix('sha256:')}" != found:
        raise CheckpointError(
            f"{reference_text}: the recipe pins content {pinned_digest}, found {found}; the model was changed since: "
            "restore it, or remove the pin"
        )
    return checkpoint


def resolve_path(reference_text: str) -> Path:
    """The path of data on this machine.

    Raises:
        StoreError: the reference is no path.
    """
    if parse_reference(reference_text).place is Place.FOLDER:
        return Path(reference_text)
    raise StoreError(f"{reference_text} is no path; this version reads data from paths only: copy it here first")


def _describe_local(name: str, reference_text: str, folder: Path, cache: ResultCache) -> Checkpoint:
    paths = list_model_files(folder)
    try:
        files = {path: cache.digest_file(folder / path) for path in paths}
    except OSError as error:
        raise CheckpointError(f"{folder}: a file cannot be read: {error}") from error
    return describe_folder(name, reference_text, folder, files)


def _cannot_read(reference_text: str) -> str:
    reference = parse_reference(reference_text)
    if reference.place is Place.HUB:
        revision = f" --revision {reference.revision}" if reference.revision else ""
        command = f"hf download {reference.location}{revision} --local-dir DIR"
    else:
        command = f"aws s3 sync {reference.location} DIR"
    return (
        f"{reference_text}: this version reads folders and releases only; download it first (`{command}`) and give the "
        "path, beginning with / or ./"
    )
