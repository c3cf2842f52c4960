"""The face of merging."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.faces import progress_in_ui
from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint, MergedModel, MergeWeights
from tasks.settings import MergeSettings, parse_size


@task(name="merge", task_run_name="merge", cache_policy=NO_CACHE, result_serializer="json")
def merge(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: MergeWeights,
    settings: MergeSettings,
    general: str | None,
    output: str,
) -> MergedModel:
    """Stream the candidates into one new checkpoint in the folder `output`; see `tasks.merge.merge`."""
    with progress_in_ui("merge") as report:
        return merge_checkpoints(
            base,
            candidates,
            weights.weights,
            method=settings.method,
            general=general,
            scale=settings.parameters.scale,
            dtype=settings.dtype,
            max_shard_bytes=parse_size(settings.max_shard_size),
            template=base,
            output=Path(output),
            report_progress=report,
        )
