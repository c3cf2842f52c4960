"""Bytes a refresh reads and writes, and whether there is room for them."""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.checkpoint import DTYPE_BYTES, FLOAT_DTYPES, TensorView, is_weight_file
from tasks.errors import StoreError
from tasks.records import Checkpoint
from tasks.references import Place, parse_reference
from tasks.stores.open import open_store

_BYTES_PER_NUMBER = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(slots=True)
class _FileSystem:
    """One file system that is written to, perhaps at several places."""

    free: int
    needed: int = 0
    places: list[str] = field(default_factory=list[str])


def count_weight_bytes(views: Mapping[str, TensorView], dtype: str) -> int:
    """Bytes of all tensors with the floating ones in `dtype` (`base`: each as it is)."""
    return sum(_bytes_as(view, dtype) for view in views.values())


def count_bytes_to_read(checkpoints: Iterable[Checkpoint]) -> int:
    """Bytes of all distinct models, each counted once however often it is read."""
    return sum({checkpoint.digest: checkpoint.size for checkpoint in checkpoints}.values())


def count_bytes_to_write(base: Checkpoint, views: Mapping[str, TensorView], dtype: str) -> int:
    """Bytes of the merged model: the base's tensors in `dtype`, and its files that hold no tensors."""
    rest = sum(file.size for path, file in base.files.items() if not is_weight_file(path))
    return count_weight_bytes(views, dtype) + rest


def space_problems(work_folder: Path, destinations: Iterable[str], bytes_to_write: int) -> list[str]:
    """Say where there is too little room; the model is written to the work folder and copied to each destination.

    Places on one file system share its room. Destinations that cannot be opened are another check's finding.
    """
    disks: dict[object, _FileSystem] = {}
    _demand(disks, work_folder, bytes_to_write)
    problems: list[str] = []
    for destination in destinations:
        try:
            if parse_reference(destination).place is Place.FOLDER:
                _demand(disks, Path(destination), bytes_to_write)
            elif (free := open_store(destination).free_bytes()) is not None:
                disks[destination] = _FileSystem(free, bytes_to_write, [destination])
        except (StoreError, OSError):
            continue
    for disk in disks.values():
        if disk.needed > disk.free:
            problems.append(
                f"{' and '.join(disk.places)}: {disk.needed:,} bytes to write, {disk.free:,} free; make room or choose "
                "another place"
            )
    return problems


def nearest_existing(path: Path) -> Path:
    """The path, or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def work_folder_problem(work_folder: Path) -> str | None:
    """Say why the work folder cannot be written; None if it can. Nothing is made."""
    existing = nearest_existing(work_folder.absolute())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    reason = "is read-only" if existing.is_dir() else "is a file"
    return f"work folder {work_folder}: {existing} {reason}; choose another with --cache DIR"


def _demand(disks: dict[object, _FileSystem], folder: Path, n_bytes: int) -> None:
    existing = nearest_existing(folder.absolute())
    device = existing.stat().st_dev
    disk = disks.setdefault(device, _FileSystem(shutil.disk_usage(existing).free))
    disk.needed += n_bytes
    disk.places.append(str(folder))


def _bytes_as(view: TensorView, dtype: str) -> int:
    if dtype == "base" or view.dtype not in FLOAT_DTYPES:
        return view.n_elements * DTYPE_BYTES[view.dtype]
    return view.n_elements * _BYTES_PER_NUMBER[dtype]
