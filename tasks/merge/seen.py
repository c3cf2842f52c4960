"""What a merge reads must not change meanwhile: the files of its models as they were seen before, and looked at again.

Blocks are not hashed on their way. A file that nobody wrote to since its content was proven has that content still;
one that was written to may have given one half of its tensors before and one after.
"""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tasks.cache import ResultCache
from tasks.checkpoint import INDEX_FILE, SINGLE_FILE, is_model_file
from tasks.errors import InputError, ModelChangedError
from tasks.records import Checkpoint
from tasks.unchanged import check_models_unchanged


class _Identity(NamedTuple):
    """Another one after every write. ctime, too: an old mtime can be set again, as by rsync --times."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class SeenModels:
    """Files of models as they were at one moment; it can be sent to another process of this machine."""

    files: Mapping[Path, tuple[str, _Identity | None]]
    """File to the name of its model, and what it was; None for one that must not be there."""

    def check(self) -> None:
        """Look at all files again, which costs a stat each.

        Raises:
            ModelChangedError: some are no longer what they were; all of them are listed.
        """
        changed = [
            f"{name}: {file} {how}" for file, (name, seen) in self.files.items() if (how := _change(seen, _look(file)))
        ]
        if changed:
            listed = "\n".join(f"  - {line}" for line in changed)
            raise ModelChangedError(
                f"models changed before their merge was done:\n{listed}\n"
                "run again to plan with what is there now, and write models to a new folder while refreshes run"
            )


def see_models(*models: Checkpoint) -> SeenModels:
    """Look at all files of models in folders, and of their adapters; those that cannot be seen count as not there."""
    files: dict[Path, tuple[str, _Identity | None]] = {}
    for part in (part for model in models for part in model.parts):
        folder = part.folder
        for path in part.files or _list_files(folder):
            files.setdefault(folder / path, (part.name, _look(folder / path)))
            if path.rpartition("/")[2] == INDEX_FILE and (single := _beside(path, SINGLE_FILE)) not in part.files:
                # Once it is there, it is read in place of what the index names.
                files.setdefault(folder / single, (part.name, None))
    return SeenModels(files)


def prove_models(cache: ResultCache, *models: Checkpoint) -> SeenModels:
    """The files of models that still are what was planned.

    Args:
        cache: Remembers digests: a file that did not change since planning is not read.
        models: On this machine.

    Raises:
        InputError: files of a model changed or vanished since planning.
    """
    # Seen first: what is written from now on shows when they are looked at again.
    seen = see_models(*models)
    check_models_unchanged(cache, *models)
    return seen


@contextmanager
def blaming_changes(check_inputs: Callable[[], None]) -> Generator[None]:
    """Where inputs cannot be used because they changed, say that.

    Raises:
        ModelChangedError: as `check_inputs`, in place of an `InputError` or `OSError` of the block.
    """
    try:
        yield
    except ModelChangedError:
        raise
    except (InputError, OSError):
        check_inputs()
        raise


def _list_files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if is_model_file(path)]


def _beside(path: str, name: str) -> str:
    return "".join([*path.rpartition("/")[:2], name])


def _look(file: Path) -> _Identity | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return _Identity(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _change(seen: _Identity | None, found: _Identity | None) -> str | None:
    """Say what happened to a file; None if nothing did."""
    if seen == found:
        return None
    if found is None:
        return "is gone"
    if seen is None:
        return "has appeared"
    if seen.inode != found.inode:
        return "was replaced by another file"
    return f"was written to ({seen.size:,} bytes before, {found.size:,} now)"
