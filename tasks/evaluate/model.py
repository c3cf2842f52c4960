"""Evaluate one model on one task, on a leased device, once per content."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tasks.cache import ResultCache
from tasks.devices import call_on_device
from tasks.errors import NonFiniteError
from tasks.evaluate.classification import classify
from tasks.evaluate.retrieval import retrieve
from tasks.records import Checkpoint, Evaluation, ExampleSet
from tasks.references import local_path
from tasks.settings import EvaluationTask, ScoreSettings

logger = logging.getLogger(__name__)

ENGINE_VERSION = 1
"""Raised by hand when a change makes other values of the same model and data; what is cached then counts no more."""

Measure = Callable[[str, str, str, str, int, str, int, str | None], list[float]]
"""(device, model folder, data path, data sha256, max_length, dtype, batch_tokens, folder of an adapter on the model) to
one value per example."""


@dataclass(frozen=True, slots=True)
class EvaluationKind:
    """How a kind of evaluation is measured."""

    metric: str
    higher_is_better: bool
    measure: Measure
    """Runs in a worker process."""


KINDS = {
    "classification": EvaluationKind("accuracy", True, classify),
    "retrieval": EvaluationKind("ndcg@10", True, retrieve),
}


def evaluate_model(
    checkpoint: Checkpoint,
    task: EvaluationTask,
    data: ExampleSet,
    settings: ScoreSettings,
    cache: ResultCache,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model on held-out data, or take from the cache what was measured before.

    Args:
        checkpoint: On this machine, with its adapter if it has one; its name is that of the result.
        task: What to measure.
        data: The task's rows, as planned.
        settings: Devices, precision and limits; the same for every model that is compared.
        cache: Asked by content: model, data, kind, precision and limit, not names or paths.
        report_progress: Called as (done, total) while the model computes.

    Raises:
        NonFiniteError: the model computes NaN, infinity, or the same for everything; the message names it.
        ExampleDataError: the data is damaged or was changed since the run was planned.
        CheckpointError: the model cannot be loaded.
        DeviceError: the device or its worker process failed; subclasses say whether trying again may help.
    """
    kind = KINDS[task.kind]
    key = _cache_key(checkpoint, task, data, settings)
    entry = cache.get("evaluation", key)
    if entry is not None:
        values, seconds = entry["values"], entry["seconds"]
    else:
        values, seconds = _call_worker(checkpoint, task, data, settings, report_progress)
        cache.put("evaluation", key, {"values": values, "seconds": seconds})
    evaluation = Evaluation(
        task=task.name,
        model=checkpoint.name,
        metric=kind.metric,
        higher_is_better=kind.higher_is_better,
        values=tuple(values),
        data_sha256=data.sha256,
        seconds=seconds,
        cached=entry is not None,
        conditions=measuring_conditions(settings),
    )
    logger.info(
        "evaluated %s on %s: %s %.4f +- %.4f over %d examples (%s)",
        checkpoint.name, task.name, kind.metric, evaluation.value, evaluation.stderr, len(evaluation.values),
        "cached" if evaluation.cached else f"{seconds:.1f} s",
    )  # fmt: skip
    return evaluation


def is_evaluated(
    checkpoint: Checkpoint, task: EvaluationTask, data: ExampleSet, settings: ScoreSettings, cache: ResultCache
) -> bool:
    """Whether `evaluate_model` would find its result in the cache."""
    return cache.get("evaluation", _cache_key(checkpoint, task, data, settings)) is not None


def measuring_conditions(settings: ScoreSettings) -> str:
    """What decides values besides model, data and kind: values of two nights compare only where it is equal."""
    return f"engine {ENGINE_VERSION}, {settings.dtype}, at most {settings.max_length} tokens"


def measure(
    device: str,
    kind: str,
    folder: str,
    data_path: str,
    data_sha256: str,
    max_length: int,
    dtype: str,
    batch_tokens: int,
    adapter: str | None = None,
) -> tuple[list[float], float]:
    """Values of all examples and the seconds that took; runs in a worker process, so waiting for one does not count."""
    start = time.perf_counter()
    values = KINDS[kind].measure(device, folder, data_path, data_sha256, max_length, dtype, batch_tokens, adapter)
    return values, time.perf_counter() - start


def _cache_key(
    checkpoint: Checkpoint, task: EvaluationTask, data: ExampleSet, settings: ScoreSettings
) -> dict[str, object]:
    """Content and what changes values; names, paths, batch size and devices do not."""
    return {
        "engine": ENGINE_VERSION,
        "model": checkpoint.digest,
        "data": data.sha256,
        "kind": task.kind,
        "metric": KINDS[task.kind].metric,
        "dtype": settings.dtype,
        "max_length": settings.max_length,
    }


def _call_worker(
    checkpoint: Checkpoint,
    task: EvaluationTask,
    data: ExampleSet,
    settings: ScoreSettings,
    report_progress: Callable[[int, int], None] | None,
) -> tuple[list[float], float]:
    """The metric of every example, finite, and the seconds of the computation."""
    try:
        values, seconds = call_on_device(
            settings.devices,
            measure,
            task.kind,
            str(checkpoint.folder),
            str(local_path(data.uri)),
            data.sha256,
            settings.max_length,
            settings.dtype,
            settings.batch_tokens,
            str(checkpoint.adapter.folder) if checkpoint.adapter else None,
            timeout_seconds=settings.timeout_seconds,
            report_progress=report_progress,
        )
    except NonFiniteError as error:
        # The worker knows a folder; people know the model by its name.
        raise NonFiniteError(f"{checkpoint.name} on task {task.name!r}: {error}") from error
    broken = sum(not math.isfinite(value) for value in values)
    if broken:
        raise NonFiniteError(
            f"{checkpoint.name} on task {task.name!r}: {KINDS[task.kind].metric} is NaN or infinite on {broken} of "
            f"{len(values)} examples"
        )
    return values, seconds
