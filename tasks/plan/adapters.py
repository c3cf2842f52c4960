"""LoRA adapters of candidates: found, brought here and held against their model before any weight is read.

Adapters are small next to models, so they are fetched whole while a run is planned: then every one of their numbers
can be looked at. Of one that is not small only the header is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.cache import ResultCache
from tasks.errors import CheckpointError, CocktailError
from tasks.licences import CARD_FILE, read_licence
from tasks.lora.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter, other_base, read_adapter
from tasks.messages import list_some
from tasks.parallel import call_all
from tasks.plan.ancestry import is_finite
from tasks.plan.findings import Findings
from tasks.plan.resolve import ResolvedModel, check_pin
from tasks.recipe import Recipe
from tasks.records import Checkpoint
from tasks.references import Place, canonical, parse_reference
from tasks.settings import CandidateSettings
from tasks.sources.fetch import fetch_files, known_digest
from tasks.sources.open import open_source
from tasks.sources.sketch import open_sketch
from tasks.tensors import TensorView

_SMALL_BYTES = 1_000_000_000
_PICKLE = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """An adapter that is known by its content, and where it can be read while planning."""

    checkpoint: Checkpoint
    """Of the configuration and the weights alone: an adapter's tokenizer is not used."""
    folder: Path
    """Where its configuration and header can be read on this machine."""
    is_whole: bool
    """Whether its numbers are in `folder`, too."""

    def explain(self, message: object) -> str:
        """A message with the reference that the user knows instead of the folder."""
        return str(message).replace(str(self.folder), self.checkpoint.model)


def open_adapters(recipe: Recipe, cache: ResultCache) -> dict[str, OpenedAdapter | CocktailError]:
    """Every distinct reference to an adapter, in its canonical form, to the adapter, or why it cannot be read."""
    named = [candidate.adapter for candidate in recipe.candidates if candidate.adapter is not None]
    references = list(dict.fromkeys(map(canonical, named)))

    def open_adapter(reference: str) -> OpenedAdapter:
        resolved = resolve_adapter(reference, cache)
        folder, sketch = open_sketch(resolved.checkpoint, resolved.source, resolved.fetched, cache)
        return OpenedAdapter(resolved.checkpoint, folder, sketch is None)

    return dict(zip(references, call_all(open_adapter, references), strict=True))


def take_adapter(
    opened: Mapping[str, OpenedAdapter | CocktailError], candidate: CandidateSettings
) -> OpenedAdapter | None:
    """A candidate's adapter under the name that it has in the plan; None if it has none.

    Raises:
        CocktailError: what opening it ended with, or its content is not the pinned one.
    """
    if candidate.adapter is None:
        return None
    found = opened[canonical(candidate.adapter)]
    if isinstance(found, CocktailError):
        raise found
    check_pin(found.checkpoint, candidate.adapter_digest)
    named = replace(found.checkpoint, name=f"{candidate.name} adapter", model=candidate.adapter)
    return replace(found, checkpoint=named)


def resolve_adapter(reference_text: str, cache: ResultCache) -> ResolvedModel:
    """Find an adapter and the digests of its two files; its name is the reference.

    Args:
        reference_text: A folder, the Hub or S3, paths absolute.
        cache: Remembers digests, and keeps what is fetched: all of an adapter that is not large.

    Raises:
        CheckpointError: there is no adapter in safetensors.
        NotFoundError: no such folder, repository or revision.
        StoreError: the place cannot be read.
    """
    place = parse_reference(reference_text).place
    if place in (Place.RELEASE, Place.MLFLOW):
        raise CheckpointError(f"{reference_text}: releases are whole models and no adapters; name it under model")
    source = open_source(reference_text, "model")
    listed = source.list_files()
    _check_files(list(listed), reference_text)
    known = known_digest(source, ADAPTER_WEIGHTS_FILE, cache)
    is_left = known is not None and known.size > _SMALL_BYTES
    wanted = [ADAPTER_CONFIG_FILE, *([] if is_left else [ADAPTER_WEIGHTS_FILE])]
    notes = [CARD_FILE] if CARD_FILE in listed else []
    fetched = fetch_files(source, [*wanted, *notes], cache)
    card = fetched.pop(CARD_FILE, None)
    files = {path: file.digest for path, file in fetched.items()}
    files |= {ADAPTER_WEIGHTS_FILE: known} if is_left and known else {}
    licence = getattr(source, "licence", None) or (card and read_licence(card.path))
    checkpoint = Checkpoint(reference_text, reference_text, source.revision, source.uri, files, licence)
    checkpoint = replace(checkpoint, revision=checkpoint.revision or f"sha256:{checkpoint.digest}")
    return ResolvedModel(checkpoint) if place is Place.FOLDER else ResolvedModel(checkpoint, source, fetched)


def check_adapter(adapter: OpenedAdapter, model: str, views: Mapping[str, TensorView], label: str) -> Findings:
    """Whether an adapter can be added to its model.

    Args:
        adapter: With its configuration and header on this machine.
        model: The reference of the model under it.
        views: That model's tensors by their full names.
        label: How messages call the candidate.
    """
    try:
        read = read_adapter(adapter.folder, views)
        broken = _non_finite(read) if adapter.is_whole else []
    except (CheckpointError, OSError) as error:
        return Findings([f"{label}: {adapter.explain(error)}"])
    found = Findings()
    if broken:
        names = list_some([repr(name) for name in broken])
        found.problems.append(
            f"{label}: {adapter.checkpoint.model}: tensor {names} holds NaN or infinity; the adapter is broken"
        )
    if warning := other_base(read, model):
        found.warnings.append(f"{label}: {adapter.explain(warning)}")
    return found


def _check_files(paths: list[str], where: str) -> None:
    if ADAPTER_CONFIG_FILE not in paths:
        raise CheckpointError(
            f"{where}: there is no {ADAPTER_CONFIG_FILE}, but {list_some(paths) or 'nothing'}; expected an adapter as "
            "PEFT's save_pretrained writes it (a whole model stands under model, without adapter)"
        )
    if ADAPTER_WEIGHTS_FILE not in paths:
        pickle = f"only {_PICKLE}, a pickle, which can run code" if _PICKLE in paths else list_some(paths)
        raise CheckpointError(
            f"{where}: expected {ADAPTER_WEIGHTS_FILE}, found {pickle}; of adapters only safetensors are read: save it "
            "again with save_pretrained(folder, safe_serialization=True)"
        )


def _non_finite(adapter: Adapter) -> list[str]:
    """Names, as in the adapter's file, of all tensors with NaN or infinity."""
    factors = [view for change in adapter.changes.values() for view in (change.a, change.b)]
    return sorted(view.name for view in (*factors, *adapter.replaced.values()) if not is_finite(view))
