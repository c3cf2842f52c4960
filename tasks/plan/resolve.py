"""From a reference in a recipe to a model of which every file is known by its content."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.cache import ResultCache
from tasks.checkpoint import CONFIG_FILE, describe_folder, is_model_file, is_safetensors, list_model_files
from tasks.errors import CheckpointError, NotFoundError, StoreError
from tasks.licences import CARD_FILE, read_licence, read_licence_text
from tasks.messages import list_some
from tasks.plan.weights import Weights, choose_weights, pickles_problem
from tasks.records import Checkpoint
from tasks.references import Place, parse_reference
from tasks.registry.address import split_destination
from tasks.registry.releases import MANIFEST_FILE, Registry, open_registry
from tasks.sources.fetch import FetchedFile, fetch_files, known_digests, link_folder
from tasks.sources.open import open_source
from tasks.sources.pickles import convert_pickles, is_pickle
from tasks.sources.source import Source

logger = logging.getLogger(__name__)

_DEFAULT_ALIAS = "champion"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that is known by its content, and what of it can be read here."""

    checkpoint: Checkpoint
    source: Source | None = None
    """Where parts of its weights can be read; None for a model that is on this machine."""
    fetched: Mapping[str, FetchedFile] = field(default_factory=dict[str, FetchedFile])
    """Of a model that is elsewhere, the files that are here already: all but weights."""
    manifest: Path | None = None
    """manifest.json on this machine, where files of a release are named by their place and not as a release."""


def resolve_checkpoint(
    name: str, reference_text: str, pinned_digest: str | None, cache: ResultCache, *, allow_pickle: bool = False
) -> Checkpoint:
    """Find a model and the digest of each of its files.

    Args:
        name: What the recipe calls it.
        reference_text: A folder, the Hub, S3 or `release:DESTINATION/NAME@version-or-alias`, paths absolute.
        pinned_digest: Content it must have (`sha256:...`), from a lock file; None for any.
        cache: Remembers digests of files that did not change, and keeps what is fetched.
        allow_pickle: Whether weights that exist only as pickles are read; they become safetensors in the cache.

    Raises:
        CheckpointError: there is no checkpoint that can be read, or its content is not the pinned one.
        NotFoundError: no such repository, revision or release.
        StoreError: the place cannot be read.
    """
    found = resolve_model(reference_text, cache, allow_pickle=allow_pickle)
    check_pin(found.checkpoint, pinned_digest)
    return replace(found.checkpoint, name=name)


def resolve_model(reference_text: str, cache: ResultCache, *, allow_pickle: bool = False) -> ResolvedModel:
    """`resolve_checkpoint` with what can be read of the model here; its name is the reference."""
    reference = parse_reference(reference_text)
    if reference.place is Place.MLFLOW:
        raise StoreError(f"{reference_text}: MLflow keeps no models here; name the place that it points to")
    if reference.place is Place.RELEASE:
        return _resolve_release(reference_text, cache)
    if reference.place is not Place.FOLDER:
        return _resolve_source(reference_text, open_source(reference_text, "model"), cache, allow_pickle)
    folder = Path(reference.location)
    paths = list_model_files(folder)
    if allow_pickle and not any(is_safetensors(path) for path in paths):
        return _resolve_source(reference_text, open_source(reference_text, "model"), cache, allow_pickle)
    return _resolve_folder(reference_text, folder, paths, cache)


def check_pin(checkpoint: Checkpoint, pinned_digest: str | None) -> None:
    """Refuse other content than a lock file names.

    Raises:
        CheckpointError: the content is another.
    """
    found = f"sha256:{checkpoint.digest}"
    if pinned_digest is not None and f"sha256:{pinned_digest.removeprefix('sha256:')}" != found:
        raise CheckpointError(
            f"{checkpoint.model}: the recipe pins content {pinned_digest}, found {found}; the model was changed since: "
            "restore it, or remove the pin"
        )


def _resolve_folder(reference_text: str, folder: Path, paths: Sequence[str], cache: ResultCache) -> ResolvedModel:
    try:
        files = {path: cache.digest_file(folder / path) for path in paths}
    except OSError as error:
        raise CheckpointError(f"{folder}: a file cannot be read: {error}") from error
    checkpoint = describe_folder(reference_text, reference_text, folder, files)
    manifest = folder / MANIFEST_FILE
    return ResolvedModel(
        replace(checkpoint, licence=read_licence(folder / CARD_FILE)),
        manifest=manifest if manifest.is_file() else None,
    )


def _resolve_release(reference_text: str, cache: ResultCache) -> ResolvedModel:
    """A release: its manifest says every digest, so nothing is hashed."""
    reference = parse_reference(reference_text)
    address = split_destination(reference.location)
    registry = open_registry(address.destination, address.name)
    version = registry.resolve(reference.revision or _DEFAULT_ALIAS)
    found = registry.checkpoint(version, reference_text)
    checkpoint = replace(found, model=reference_text, licence=_licence_of_release(registry, version))
    if checkpoint.uri.startswith("file:"):
        return ResolvedModel(checkpoint)
    source = open_source(checkpoint.uri, "model")
    small = [path for path in checkpoint.files if not is_safetensors(path)]
    return ResolvedModel(checkpoint, source, fetch_files(source, small, cache, expected=checkpoint.files))


def _resolve_source(reference_text: str, source: Source, cache: ResultCache, allow_pickle: bool) -> ResolvedModel:
    """A model on the Hub or S3, or a folder with pickles."""
    listed = source.list_files()
    paths = [path for path in listed if is_model_file(path)]
    if CONFIG_FILE not in paths:
        found = list_some(list(listed)) or "nothing"
        raise CheckpointError(
            f"{reference_text}: there is no {CONFIG_FILE}, but {found}; is this a checkpoint in Hugging Face layout?"
        )
    notes = [note for note in (MANIFEST_FILE, CARD_FILE) if note in listed]
    small = [path for path in paths if not is_safetensors(path)]
    fetched = fetch_files(source, [*small, *notes], cache)
    kept_notes = {note: fetched.pop(note).path for note in notes}
    weights = choose_weights(listed, link_folder(fetched, cache), reference_text)
    if weights.pickled and not allow_pickle:
        raise CheckpointError(pickles_problem(weights, reference_text))
    known = known_digests(source, weights.safetensors, cache)
    fetched |= _fetch_unknown(source, [path for path in known if known[path] is None], cache)
    digests = {path: file.digest for path, file in fetched.items()}
    digests |= {path: digest for path, digest in known.items() if digest}
    files = {path: digests[path] for path in sorted(digests)}
    checkpoint = Checkpoint(reference_text, reference_text, source.revision, source.uri, files)
    licence = getattr(source, "licence", None) or (CARD_FILE in kept_notes and read_licence(kept_notes[CARD_FILE]))
    checkpoint = replace(checkpoint, licence=licence or None)
    if weights.pickled:
        return _convert(checkpoint, source, weights, fetched, cache)
    revision = checkpoint.revision or f"sha256:{checkpoint.digest}"
    return ResolvedModel(
        replace(checkpoint, revision=revision), source, fetched, manifest=kept_notes.get(MANIFEST_FILE)
    )


def _fetch_unknown(source: Source, paths: Sequence[str], cache: ResultCache) -> dict[str, FetchedFile]:
    """Weights that nobody has said the sha256 of; they must be read to be known, once."""
    listed = source.list_files()
    for path in paths:
        if listed[path].identity:  # A file of this machine is hashed, like any other.
            logger.warning("%s/%s has no sha256; reading it once (%d bytes)", source.uri, path, listed[path].size)
    return fetch_files(source, paths, cache) if paths else {}


def _convert(
    checkpoint: Checkpoint, source: Source, weights: Weights, fetched: Mapping[str, FetchedFile], cache: ResultCache
) -> ResolvedModel:
    """The same model with safetensors in place of its pickles, in a folder of the cache."""
    files = {path: file for path, file in fetched.items() if not is_pickle(path)}
    files |= fetch_files(source, weights.safetensors, cache)
    for component, paths in weights.pickled.items():
        logger.info("%s: reading the tensors of %s", checkpoint.model, ", ".join(paths))
        prefix = f"{component}/" if component else ""
        pickles = {path.removeprefix(prefix): file.path for path, file in fetch_files(source, paths, cache).items()}
        files |= {f"{prefix}{path}": file for path, file in convert_pickles(pickles, cache).items()}
    digests = {path: file.digest for path, file in files.items()}
    described = describe_folder(checkpoint.name, checkpoint.model, link_folder(files, cache), digests)
    revision = checkpoint.revision or described.revision
    return ResolvedModel(replace(described, revision=revision, licence=checkpoint.licence))


def _licence_of_release(registry: Registry, version: str) -> str | None:
    path = f"{registry.version_path(version)}/{CARD_FILE}"
    try:
        card = registry.store.read_bytes(path).decode(errors="replace")
    except NotFoundError:
        return None
    return read_licence_text(card, registry.store.uri(path))
