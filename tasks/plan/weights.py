"""Which of a repository's files hold the weights that are merged, told from names and indexes alone.

A repository may hold the same weights several times (one file and shards, other formats, other libraries); those that
`tasks.checkpoint` reads are fetched, the others are left where they are.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    is_other_weight_file,
    is_safetensors,
    read_json_object,
    read_modules,
)
from tasks.errors import CheckpointError
from tasks.sources.pickles import is_pickle


@dataclass(frozen=True, slots=True)
class Weights:
    """What a checkpoint's weights are made of."""

    safetensors: tuple[str, ...]
    """Paths inside the checkpoint, of all components that have safetensors."""
    pickled: dict[str, tuple[str, ...]]
    """Component (`""` for the root) to its pickles with their index, where it has no safetensors."""


def choose_weights(paths: Collection[str], small_files: Path, where: str) -> Weights:
    """Sort out the weights of every component.

    Args:
        paths: All that there is.
        small_files: A folder with the files that hold no tensors.
        where: What messages call the checkpoint.

    Raises:
        CheckpointError: a component has weights in other forms only, an index names files that are not there, or
            the root has no weights at all.
    """
    safetensors: list[str] = []
    pickled: dict[str, tuple[str, ...]] = {}
    for component in dict.fromkeys(["", *(module.path for module in read_modules(small_files))]):
        prefix = f"{component}/" if component else ""
        if found := _component_files(paths, small_files, prefix, where):
            safetensors += found
        elif beside := _weights_of_other_forms(paths, prefix):
            pickles = tuple(path for path in paths if path.rpartition("/")[0] == component and is_pickle(path))
            if not pickles:
                raise CheckpointError(
                    f"{where}: expected {prefix}{SINGLE_FILE} or {prefix}{INDEX_FILE}, found only {', '.join(beside)}; "
                    "only safetensors are read: save the model again with save_pretrained"
                )
            pickled[component] = pickles
        elif not component:
            raise CheckpointError(f"{where}: expected {SINGLE_FILE} or {INDEX_FILE}, found no weights at all")
    return Weights(tuple(safetensors), pickled)


def pickles_problem(weights: Weights, where: str) -> str:
    """Say that weights exist only as pickles, which, and what to do."""
    names = ", ".join(path for paths in weights.pickled.values() for path in paths)
    return (
        f"{where}: these weights exist only as pickles, which can run code when they are loaded carelessly: {names}; "
        "name a revision with safetensors (org/name@refs/pr/N, where the Hub's converter has made one), or write "
        "`allow_pickle: true` beside the candidate: then tensors and nothing else are read from them"
    )


def _component_files(paths: Collection[str], small_files: Path, prefix: str, where: str) -> list[str]:
    """As `tasks.checkpoint.weight_files` chooses on a disk."""
    if prefix + SINGLE_FILE in paths:
        return [prefix + SINGLE_FILE]
    if prefix + INDEX_FILE not in paths:
        return []
    weight_map = read_json_object(small_files / prefix / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(
            f"{where}/{prefix}{INDEX_FILE}: expected weight_map to say for every tensor which file beside it has it"
        )
    shards = sorted({f"{prefix}{name}" for name in weight_map.values()})
    if missing := [shard for shard in shards if shard not in paths]:
        raise CheckpointError(f"{where}/{prefix}{INDEX_FILE}: it names files that are not there: {', '.join(missing)}")
    return shards


def _weights_of_other_forms(paths: Collection[str], prefix: str) -> list[str]:
    """Weights under a component that it cannot be read from; of the root, only those directly in it."""
    inside = (path for path in paths if path.startswith(prefix) and (prefix or "/" not in path))
    return sorted(path for path in inside if is_other_weight_file(path) or is_safetensors(path))
