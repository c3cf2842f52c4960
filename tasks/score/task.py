"""The face of scoring."""

from prefect import task

from tasks.cache import open_cache
from tasks.faces import RETRIED, progress_in_ui
from tasks.records import Checkpoint, ExampleSet, Score
from tasks.score.candidate import score_candidate
from tasks.settings import CacheSettings, ModelType, ScoreSettings


@task(name="score", task_run_name="score {candidate.name}", **RETRIED)
def score(
    candidate: Checkpoint, examples: ExampleSet, model_type: ModelType, settings: ScoreSettings, cache: CacheSettings
) -> Score:
    """Score one candidate on a leased device; see `tasks.score.candidate`."""
    with progress_in_ui(f"score {candidate.name}") as report:
        return score_candidate(candidate, examples, model_type, settings, open_cache(cache), report)
