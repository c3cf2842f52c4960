"""The face of downloading."""

from prefect import task

from tasks.cache import open_cache
from tasks.download.candidate import download_checkpoint
from tasks.faces import RETRIED, progress_in_ui
from tasks.records import Checkpoint
from tasks.settings import CacheSettings


@task(name="download", task_run_name="download {checkpoint.name}", **RETRIED)
def download(checkpoint: Checkpoint, cache: CacheSettings) -> Checkpoint:
    """Bring one checkpoint to this machine and prove its content; see `tasks.download.candidate`."""
    with progress_in_ui(f"download {checkpoint.name}") as report:
        return download_checkpoint(checkpoint, open_cache(cache), report)
