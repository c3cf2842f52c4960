"""Score one candidate: its loss on every example, computed on a leased device or found in the cache."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.cache import ResultCache
from tasks.data.examples import digest_rows, read_rows
from tasks.devices import call_on_device
from tasks.errors import ExampleDataError, NonFiniteError, RecipeError
from tasks.messages import plural
from tasks.records import Checkpoint, ExampleSet, Score
from tasks.references import local_path
from tasks.score.said import collected_warnings
from tasks.settings import ModelType, ScoreSettings, loss_problem
from tasks.unchanged import check_models_unchanged

logger = logging.getLogger(__name__)

ENGINE_VERSION = 2
"""Raised by hand when a change gives other losses of the same model and examples; the cached ones then do not count."""


def score_candidate(
    checkpoint: Checkpoint,
    examples: ExampleSet,
    model_type: ModelType,
    settings: ScoreSettings,
    cache: ResultCache,
    report_progress: Callable[[int, int], None] | None = None,
) -> Score:
    """The losses of one candidate before any merging.

    Args:
        checkpoint: On this machine, with its adapter if it has one; its name is that of the score.
        examples: On this machine, as planned.
        model_type: What the model is loaded as, which also says what the rows look like.
        settings: Precision and limits, the same for all candidates; devices and time limit.
        cache: Asked by content: model, examples and what changes losses. Names, paths, batch size and devices do not.
        report_progress: Called as (done, total) while the model computes.

    Raises:
        RecipeError: models of this type have no such loss.
        ExampleDataError: an example cannot be scored, or the file was changed since the run was planned.
        NonFiniteError: a loss is NaN or infinity; candidate and rows are named.
        CheckpointError: the model cannot be loaded.
        InputError: the model's files were changed since the run was planned.
        DeviceError: the device or its worker process failed; subclasses say whether trying again may help.
    """
    if problem := loss_problem(model_type, settings.loss):
        raise RecipeError(f"score.{problem}")
    key = _cache_key(checkpoint, examples, model_type, settings)
    entry = cache.get("score", key)
    is_cached = entry is not None
    if entry is None:
        entry = _call_worker(checkpoint, examples, model_type, settings, report_progress)
        # What was written over while this waited for a device must not be known by the digest of what it was.
        check_models_unchanged(cache, checkpoint)
        cache.put("score", key, entry)
    elif entry["warnings"]:
        # A worker says it itself; nobody heard it this time.
        logger.warning("%s, as was found when it was scored: %s", checkpoint.name, "; ".join(entry["warnings"]))
    losses, warnings = tuple(entry["losses"]), tuple(entry["warnings"])
    score = Score(checkpoint.name, losses, entry["n_tokens"], entry["seconds"], is_cached, warnings, settings.unit)
    logger.info(
        "scored %s: loss %.4f +- %.4f over %d %s (%s)",
        score.candidate, score.loss, score.loss_stderr, len(score.losses), plural(score.unit),
        "cached" if is_cached else f"{score.seconds:.1f} s",
    )  # fmt: skip
    return score


def is_scored(
    checkpoint: Checkpoint, examples: ExampleSet, model_type: ModelType, settings: ScoreSettings, cache: ResultCache
) -> bool:
    """Whether `score_candidate` would find its result in the cache."""
    return cache.get("score", _cache_key(checkpoint, examples, model_type, settings)) is not None


def compute_losses(
    device: str,
    folder: str,
    model_type: ModelType,
    examples_path: str,
    examples_sha256: str,
    settings: ScoreSettings,
    adapter: str | None = None,
) -> dict[str, Any]:
    """Losses of all examples, tokens they were taken over, warnings, and seconds; runs in a worker process."""
    # Late, because the process that leases the device needs neither torch nor transformers.
    from tasks.losses.measure import measure_losses

    start = time.perf_counter()
    rows = read_rows(Path(examples_path), model_type)
    if digest_rows(rows) != examples_sha256:
        raise ExampleDataError(f"{examples_path}: the examples have changed since the run was planned; start it again")
    try:
        with collected_warnings() as said:
            losses, n_tokens = measure_losses(
                Path(folder), model_type, rows, settings, device, Path(adapter) if adapter else None
            )
    except ExampleDataError as error:
        raise ExampleDataError(f"{examples_path}: {error}") from error
    # They are kept by content, which may lie elsewhere another time.
    warnings = [text.removeprefix(f"{folder}: ") for text in said]
    return {"losses": losses, "n_tokens": n_tokens, "warnings": warnings, "seconds": time.perf_counter() - start}


def _cache_key(
    checkpoint: Checkpoint, examples: ExampleSet, model_type: ModelType, settings: ScoreSettings
) -> dict[str, object]:
    """Content and what changes losses; names, paths, batch size and devices do not."""
    return {
        "engine": ENGINE_VERSION,
        "entry": "losses and warnings",
        "model": checkpoint.digest,
        "examples": examples.sha256,
        "model_type": model_type,
        "loss": settings.loss,
        "dtype": settings.dtype,
        "max_length": settings.max_length,
        **({"batch_size": settings.batch_size} if settings.loss == "lm_cocktail" else {}),
    }


def _call_worker(
    checkpoint: Checkpoint,
    examples: ExampleSet,
    model_type: ModelType,
    settings: ScoreSettings,
    report_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    try:
        return call_on_device(
            settings.devices,
            compute_losses,
            str(checkpoint.folder),
            model_type,
            str(local_path(examples.uri)),
            examples.sha256,
            settings,
            str(checkpoint.adapter.folder) if checkpoint.adapter else None,
            timeout_seconds=settings.timeout_seconds,
            report_progress=report_progress,
        )
    except NonFiniteError as error:
        # The worker knows a folder; people know the model by its name.
        raise NonFiniteError(f"candidate {checkpoint.name}: {error}") from error
