"""The face of downloading."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.cache import open_cache
from tasks.download.candidate import download_checkpoint
from tasks.faces import RETRIES, RETRY_DELAY_SECONDS, is_transient_failure
from tasks.records import Checkpoint
from tasks.settings import CacheSettings


@task(
    name="download",
    task_run_name="download {checkpoint.name}",
    retries=RETRIES,
    retry_delay_seconds=list(RETRY_DELAY_SECONDS),
    retry_condition_fn=is_transient_failure,
    cache_policy=NO_CACHE,
    result_serializer="json",
)
def download(checkpoint: Checkpoint, cache: CacheSettings) -> Checkpoint:
    """Bring one checkpoint to this machine and prove its content; see `tasks.download.candidate`."""
    return download_checkpoint(checkpoint, open_cache(cache))
