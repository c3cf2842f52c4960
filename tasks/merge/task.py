"""The faces of merging: as a whole, and by file where several processes share it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from prefect import task

from tasks.cache import open_cache
from tasks.faces import RETRIED, progress_in_ui
from tasks.merge.leased import merge_leased
from tasks.merge.merge import merge_checkpoints
from tasks.merge.seen import prove_models
from tasks.merge.shards import MergeRequest, finish_merge, merge_shard, outline
from tasks.merge_records import MergedModel
from tasks.parameters import candidate_parameters, merge_parameters
from tasks.records import Checkpoint, FileDigest
from tasks.settings import CacheSettings, CandidateSettings, MergeSettings
from tasks.stores.shards import open_place
from tasks.values import parse_size
from tasks.weight_records import MergeWeights


@task(name="merge", task_run_name="merge", **RETRIED)
def merge(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: MergeWeights,
    settings: MergeSettings,
    chosen: Sequence[CandidateSettings],
    output: str,
    cache: CacheSettings,
    has_base: bool = True,
) -> MergedModel:
    """Stream the candidates into one new checkpoint in the folder `output`; see `tasks.merge.merge`.

    `chosen` holds the recipe's entries of the candidates, `has_base` says whether it names a base. Nobody else puts
    anything at `output`. Models that are no longer what was planned are refused.
    """
    with progress_in_ui("merge") as report:
        merge_there = partial(
            merge_checkpoints, base, candidates, weights.settings, template=base, output=Path(output), is_ours=True,
            general=next((candidate.name for candidate in chosen if candidate.role == "general"), None),
            method=settings.method,
            parameters=merge_parameters(settings),
            candidate_parameters=candidate_parameters(settings, chosen),
            seed=settings.seed,
            dtype=settings.dtype,
            max_shard_bytes=parse_size(settings.max_shard_size),
            embeddings=settings.embeddings,
            has_base=has_base,
            seen=prove_models(open_cache(cache), base, *candidates),
        )  # fmt: skip
        return merge_leased(settings, merge_there, report)


@task(name="outline merge", task_run_name="outline merge", **RETRIED)
def outline_split_merge(request: MergeRequest, cache: CacheSettings) -> list[str]:
    """The weight files of a merge that several processes share, large ones first; see `tasks.merge.shards`."""
    return list(outline(request, open_cache(cache)))


@task(name="merge shard", task_run_name="merge {path}", **RETRIED)
def merge_one_shard(request: MergeRequest, path: str, place: str, cache: CacheSettings) -> FileDigest:
    """Merge one weight file from ranges of the inputs and store it at `place`; see `tasks.merge.shards`."""
    kept = open_cache(cache)
    with progress_in_ui(f"merge {path}") as report:
        return merge_shard(request, path, open_place(place, kept.folder / "work"), kept, report)


@task(name="finish merge", task_run_name="finish merge", **RETRIED)
def finish_split_merge(
    request: MergeRequest, shards: Mapping[str, FileDigest], place: str, cache: CacheSettings
) -> MergedModel:
    """Store what holds no tensors beside the weight files, and compare the inputs; see `tasks.merge.shards`."""
    kept = open_cache(cache)
    return finish_merge(request, shards, open_place(place, kept.folder / "work"), kept)
