"""A sketch of a model that is elsewhere: enough of it on this machine to plan and merge with, without its weights.

A sketch is a folder in the cache with the model's small files (links to where they are kept) and, in place of every
safetensors file, a sparse file of the true size that holds the header and the ranges that were asked for. What reads
headers and samples of a local model so reads a sketch as well; whatever was not asked for reads as zeros.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tasks.cache import ResultCache
from tasks.checkpoint import is_safetensors
from tasks.errors import CheckpointError, CocktailError, StoreError
from tasks.parallel import call_all
from tasks.records import Checkpoint
from tasks.sources.fetch import FetchedFile, link_folder
from tasks.sources.source import Source
from tasks.staging import commit, locked, staged, sync, writing
from tasks.tensors import MAX_HEADER_BYTES

logger = logging.getLogger(__name__)

_SKETCHES = "sketches"
_JOURNAL, _JOURNAL_LOCK = ".filled.json", ".filled.lock"
# The headers of most files are smaller, so that one request brings them; small models come whole with it.
_FIRST_BYTES = 64 * 1024
_UNUSED_SECONDS = 30 * 24 * 3600


class FileRange(NamedTuple):
    """A piece of a file."""

    path: str
    """Inside the checkpoint."""
    start: int
    length: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """A folder to read headers and samples from; `fill` brings what is not there yet."""

    folder: Path
    source: Source

    def fill(self, ranges: Iterable[FileRange]) -> None:
        """Bring ranges of the weights here, several at a time; those that came before are not asked for again.

        Raises:
            StoreError: the model or the cache cannot be reached; what came before that is kept.
        """
        filled = _read_journal(self.folder)
        missing = [piece for piece in dict.fromkeys(ranges) if not _covers(filled.get(piece.path, ()), piece)]
        if not missing:
            return
        outcomes = call_all(self._fill_one, missing)
        come = [piece for piece, outcome in zip(missing, outcomes, strict=True) if outcome is None]
        with writing(self.folder):
            for path in {piece.path for piece in come}:
                # The journal must not say more than what survives a power failure.
                sync(self.folder / path)
            _note_filled(self.folder, come)
        logger.debug("%s: %d ranges read, %d bytes", self.source.uri, len(come), sum(piece.length for piece in come))
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _fill_one(self, piece: FileRange) -> None:
        data = self.source.read_range(piece.path, piece.start, piece.length)
        if len(data) != piece.length:
            raise StoreError(
                f"{self.source.uri}/{piece.path}: asked for {piece.length} bytes from {piece.start}, found "
                f"{len(data)}; the file was cut short"
            )
        with writing(self.folder), (self.folder / piece.path).open("r+b") as file:
            file.seek(piece.start)
            file.write(data)


def open_sketch(
    checkpoint: Checkpoint, source: Source | None, small: Mapping[str, FetchedFile], cache: ResultCache
) -> tuple[Path, Sketch | None]:
    """Where a model's headers can be read on this machine; with the sketch, unless all of the model is here.

    Args:
        checkpoint: The model.
        source: Where parts of its weights can be read; None for a model that is on this machine.
        small: Of a model that is elsewhere, the files that are here already: all but weights.
        cache: Holds the sketch.

    Raises:
        CheckpointError: a file of weights is no safetensors.
        StoreError: the model or the cache cannot be reached.
    """
    if source is None:
        return checkpoint.folder, None
    weights = {path: file for path, file in checkpoint.files.items() if is_safetensors(path)}
    found = {path: FetchedFile(place, file) for path, file in weights.items() if (place := cache.find_file(file))}
    if len(found) == len(weights):
        return link_folder({**small, **found}, cache), None
    if outside := [path for path in checkpoint.files if path.startswith("/") or ".." in PurePosixPath(path).parts]:
        raise CheckpointError(f"{checkpoint.uri}: files must lie inside the model's folder; found {', '.join(outside)}")
    folder = cache.folder / _SKETCHES / checkpoint.digest
    with writing(folder):
        _remove_unused(folder.parent)
    if folder.is_dir() and not all((folder / path).exists() for path in checkpoint.files):
        # The cache was moved, so its links lead nowhere.
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        _make(folder, source, small, {path: file.size for path, file in weights.items()})
    with writing(folder):
        os.utime(folder)
    return folder, Sketch(folder, source)


def _make(folder: Path, source: Source, small: Mapping[str, FetchedFile], weights: Mapping[str, int]) -> None:
    """Write a new sketch; of several writers the first one stays.

    Args:
        folder: Where it will be.
        source: What the headers are read from.
        small: Files that are here already.
        weights: Path of every other file to its bytes.
    """
    headers: dict[str, bytes] = {}
    outcomes = call_all(lambda path: _read_header(source, path, weights[path]), list(weights))
    for path, outcome in zip(weights, outcomes, strict=True):
        if isinstance(outcome, CocktailError):
            raise outcome
        headers[path] = outcome
    with writing(folder), staged(folder) as draft:
        for path, file in small.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).symlink_to(file.path)
        for path, header in headers.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            with (draft / path).open("wb") as file:
                file.write(header)
                file.truncate(weights[path])
            sync(draft / path)
        _write_journal(draft, {path: [(0, len(header))] for path, header in headers.items()})
        try:
            commit(draft, folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another reference leads to the same content, or another run plans with it.


def _read_header(source: Source, path: str, size: int) -> bytes:
    """The beginning of a safetensors file, at least up to the end of its header."""
    data = source.read_range(path, 0, min(size, _FIRST_BYTES))
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(
            f"{source.uri}/{path}: this is no safetensors file (header of {length} bytes in a file of {size})"
        )
    if missing := max(0, 8 + length - len(data)):
        data += source.read_range(path, len(data), missing)
    try:
        json.loads(data[8 : 8 + length])
    except ValueError as error:
        # Not kept, so that what was damaged on its way is read again the next time.
        raise CheckpointError(f"{source.uri}/{path}: the safetensors header cannot be read: {error}") from error
    return data


def _covers(filled: Sequence[tuple[int, int]], piece: FileRange) -> bool:
    return any(start <= piece.start and piece.start + piece.length <= stop for start, stop in filled)


def _read_journal(folder: Path) -> dict[str, list[tuple[int, int]]]:
    """Path to the ranges that are there, as start and stop; nothing where it is damaged."""
    try:
        content = json.loads((folder / _JOURNAL).read_text(encoding="utf-8"))
        return {path: [(start, stop) for start, stop in ranges] for path, ranges in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _note_filled(folder: Path, pieces: Sequence[FileRange]) -> None:
    with locked(folder / _JOURNAL_LOCK):
        filled = _read_journal(folder)
        for piece in pieces:
            filled.setdefault(piece.path, []).append((piece.start, piece.start + piece.length))
        _write_journal(folder, filled)


def _write_journal(folder: Path, filled: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    draft = folder / f"{_JOURNAL}.{os.getpid()}-{threading.get_ident()}"
    draft.write_text(json.dumps(filled), encoding="utf-8")
    sync(draft)
    draft.replace(folder / _JOURNAL)


def _remove_unused(sketches: Path) -> None:
    """Remove sketches of models that no plan has looked at for a month."""
    for folder in sketches.glob("[!.]*"):
        if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
