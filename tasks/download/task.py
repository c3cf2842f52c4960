"""The face of downloading."""

from prefect import task

from tasks.cache import open_cache
from tasks.download.candidate import download_checkpoint
from tasks.faces import RETRIED
from tasks.records import Checkpoint
from tasks.settings import CacheSettings


@task(name="download", task_run_name="download {checkpoint.name}", **RETRIED)
def download(checkpoint: Checkpoint, cache: CacheSettings) -> Checkpoint:
    """Bring one checkpoint to this machine and prove its content; see `tasks.download.candidate`."""
    return download_checkpoint(checkpoint, open_cache(cache))
