"""The face of scoring."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.cache import open_cache
from tasks.faces import RETRIES, RETRY_DELAY_SECONDS, is_transient_failure, progress_in_ui
from tasks.records import Checkpoint, ExampleSet, Score
from tasks.score.candidate import score_candidate
from tasks.settings import CacheSettings, ModelType, ScoreSettings


@task(
    name="score",
    task_run_name="score {candidate.name}",
    retries=RETRIES,
    retry_delay_seconds=list(RETRY_DELAY_SECONDS),
    retry_condition_fn=is_transient_failure,
    cache_policy=NO_CACHE,
    result_serializer="json",
)
def score(
    candidate: Checkpoint, examples: ExampleSet, model_type: ModelType, settings: ScoreSettings, cache: CacheSettings
) -> Score:
    """Score one candidate on a leased device; see `tasks.score.candidate`."""
    with progress_in_ui(f"score {candidate.name}") as report:
        return score_candidate(candidate, examples, model_type, settings, open_cache(cache), report)
