"""What a step does before it runs on a node of a cluster: have the models at hand, and the credentials, and the device.

This runs in the process that Ray started for one task. Nothing here knows Prefect or Ray.
"""

import functools
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from flows.connections import load_access
from tasks.cache import ResultCache, open_cache
from tasks.device_names import is_gpu, parts_of
from tasks.download.candidate import download_checkpoint
from tasks.errors import InputError
from tasks.merge.shards import MergeRequest
from tasks.mixtures.mixing import Mixing
from tasks.records import Checkpoint, ExampleSet
from tasks.references import local_path
from tasks.remote.access import use_access
from tasks.settings import CacheSettings, ConnectionSettings
from tasks.workers.in_place import leased_in_place

Result = TypeVar("Result")


def gpus_per_task(setting: str | Sequence[str], cluster_gpus: float) -> int:
    """How many GPUs each task asks for.

    Args:
        setting: The recipe's `score.devices`. Numbers of named GPUs mean nothing on a cluster; how many there are in
            each name does: `["cuda:0+cuda:1"]` are two for each model.
        cluster_gpus: GPUs of all nodes; `auto` takes one for each task where there are any.
    """
    if setting == "auto":
        return 1 if cluster_gpus >= 1 else 0
    names = [setting] if isinstance(setting, str) else setting
    return max((len(parts_of(name)) for name in names if is_gpu(name)), default=0)


def on_node(function: Callable[..., Result], connections: ConnectionSettings, n_gpus: int) -> Callable[..., Result]:
    """A step's function as it runs on a node.

    Args:
        function: Takes records, and perhaps the settings of the cache that the node keeps downloads in.
        connections: Names the blocks with credentials. They are loaded on the node, so that no secret travels.
        n_gpus: How many GPUs the process was given; it sees no others.

    Returns:
        A function with the same parameters. It raises InputError where the node cannot read what it was given, and
        what `tasks.download.candidate.download_checkpoint` raises.
    """
    device = "+".join(f"cuda:{index}" for index in range(n_gpus)) or "cpu"

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Result:
        given = [*args, *kwargs.values()]
        settings = next((value for value in given if isinstance(value, CacheSettings)), CacheSettings())
        s3, hub = load_access(connections)
        with use_access(s3, hub), leased_in_place(device):
            cache = open_cache(settings)
            check_readable(given)
            here = [_brought(value, cache) for value in args]
            return function(*here, **{name: _brought(value, cache) for name, value in kwargs.items()})

    return run


def check_readable(given: Iterable[object]) -> None:
    """Refuse files that this node cannot see, all of them at once.

    Raises:
        InputError: a model's folder or a file of examples is not here.
    """
    paths = dict.fromkeys(local_path(uri) for value in given for uri in _uris(value) if uri.startswith("file:"))
    if absent := [path for path in paths if not path.exists()]:
        listed = "\n".join(f"  - {path}" for path in absent)
        raise InputError(
            f"node {platform.node()} of the cluster cannot read what this run has on its own machine:\n{listed}\n"
            "put models, data and the cache (--cache) on storage that all nodes share under the same path; models may "
            "also be named as s3://... or org/name, and each node then fetches them"
        )


def _uris(value: object) -> list[str]:
    match value:
        case Checkpoint():
            return [part.uri for part in value.parts]
        case ExampleSet():
            return [value.uri]
        case MergeRequest():
            return [uri for model in value.models for uri in _uris(model)]
        case Mixing():
            parts = (value.base, *value.candidates, value.examples, value.general_examples)
            return [uri for part in parts for uri in _uris(part)]
        case _:
            return []


def _brought(value: Any, cache: ResultCache) -> Any:
    """The same with its models on this node, their content proven."""
    match value:
        case Checkpoint():
            return download_checkpoint(value, cache)
        case Mixing():
            base, *candidates = (download_checkpoint(each, cache) for each in (value.base, *value.candidates))
            return replace(value, base=base, candidates=tuple(candidates))
        case _:
            return value
