"""Evaluate one model on one task, on a leased device, once per content."""

import importlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from tasks.cache import ResultCache
from tasks.devices import call_on_device
from tasks.errors import NonFiniteError, RecipeError
from tasks.evaluate.request import Measured, Request
from tasks.evaluation_kinds import KINDS, Metric, default_metric
from tasks.evaluation_settings import EvaluationTask
from tasks.records import Checkpoint, Evaluation, ExampleSet
from tasks.references import local_path
from tasks.settings import ModelType, ScoreSettings
from tasks.unchanged import check_models_unchanged

logger = logging.getLogger(__name__)

ENGINE_VERSION = 2
"""Raised by hand when a change makes other values of the same model and data; what is cached then counts no more."""

_PROGRAM_GRACE_SECONDS = 60


def evaluate_model(
    checkpoint: Checkpoint,
    task: EvaluationTask,
    data: ExampleSet,
    model_type: ModelType,
    settings: ScoreSettings,
    cache: ResultCache,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model on held-out data, or take from the cache what was measured before.

    Args:
        checkpoint: On this machine, with its adapter if it has one; its name is that of the result.
        task: What to measure.
        data: The task's rows, as planned.
        model_type: What the model is loaded as.
        settings: Devices, precision and limits; the same for every model that is compared.
        cache: Asked by content: model, data, kind with its settings, precision and limit, not names or paths.
        report_progress: Called as (done, total) while the model computes.

    Raises:
        RecipeError: the kind gives no such metric.
        NonFiniteError: the model computes NaN, infinity, or the same for everything; the message names it.
        ExampleDataError: the data is damaged or was changed since the run was planned.
        CheckpointError: the model cannot be loaded.
        InputError: the model's files were changed since the run was planned.
        DeviceError: the device or its worker process failed; subclasses say whether trying again may help.
    """
    key = _cache_key(checkpoint, task, data, model_type, settings)
    entry = cache.get("evaluation", key)
    is_cached = entry is not None
    if entry is None:
        entry = _call_worker(checkpoint, task, data, model_type, settings, report_progress)
        # What was written over while this waited for a device must not be known by the digest of what it was.
        check_models_unchanged(cache, checkpoint)
        cache.put("evaluation", key, entry)
    name, metric = _metric_of(task, list(entry["values"]))
    evaluation = Evaluation(
        task=task.name,
        model=checkpoint.name,
        metric=name,
        higher_is_better=metric.higher_is_better,
        values=tuple(entry["values"][name]),
        data_sha256=data.sha256,
        seconds=entry["seconds"],
        cached=is_cached,
        conditions=measuring_conditions(task, settings),
        aggregate=metric.aggregate,
        labels=None if entry["labels"] is None or metric.aggregate == "mean" else tuple(entry["labels"]),
    )
    logger.info(
        "evaluated %s on %s: %s %.4f +- %.4f over %d examples (%s)",
        checkpoint.name, task.name, name, evaluation.value, evaluation.stderr, len(evaluation.values),
        "cached" if is_cached else f"{evaluation.seconds:.1f} s",
    )  # fmt: skip
    return evaluation


def is_evaluated(
    checkpoint: Checkpoint,
    task: EvaluationTask,
    data: ExampleSet,
    model_type: ModelType,
    settings: ScoreSettings,
    cache: ResultCache,
) -> bool:
    """Whether `evaluate_model` would find its result in the cache."""
    return cache.get("evaluation", _cache_key(checkpoint, task, data, model_type, settings)) is not None


def measuring_conditions(task: EvaluationTask, settings: ScoreSettings) -> str:
    """What decides values besides model, data and metric: values of two nights compare only where it is equal."""
    own = ", ".join(f"{key} {value}" for key, value in _own_settings(task).items() if key != "kind")
    general = f"engine {ENGINE_VERSION}, {settings.dtype}, at most {settings.max_length} tokens"
    return f"{general}, {own}" if own else general


def measure(device: str, request: Request) -> dict[str, Any]:
    """Values by metric, labels, and the seconds that took; runs in a worker process, so waiting does not count."""
    start = time.perf_counter()
    module = importlib.import_module(f"tasks.evaluate.kinds.{request.task.kind}")
    found: Measured = module.measure(request, device)
    values = {metric: list(each) for metric, each in found.values.items()}
    labels = None if found.labels is None else list(found.labels)
    return {"values": values, "labels": labels, "seconds": time.perf_counter() - start}


def _metric_of(task: EvaluationTask, measured: list[str]) -> tuple[str, Metric]:
    """The metric that counts, of those that were measured."""
    name = task.metric or default_metric(task.kind) or measured[0]
    if name not in measured:
        raise RecipeError(f"evaluate: task {task.name!r} has no metric {name!r}; it has {', '.join(measured)}")
    return name, KINDS[task.kind].metrics.get(name) or Metric(task.higher_is_better)


def _own_settings(task: EvaluationTask) -> dict[str, Any]:
    """What was set of a task that changes its values."""
    # Programs and task files are known by their content, which is in the data's digest, not by where they lie.
    without_effect = {
        "name", "data", "sha256", "metric", "higher_is_better", "timeout_seconds", "command", "include_path",
    }  # fmt: skip
    return task.model_dump(mode="json", exclude=without_effect, exclude_defaults=True)


def _cache_key(
    checkpoint: Checkpoint, task: EvaluationTask, data: ExampleSet, model_type: ModelType, settings: ScoreSettings
) -> dict[str, object]:
    """Content and what changes values; names, paths, batch size and devices do not."""
    return {
        "engine": ENGINE_VERSION,
        "entry": "all metrics",
        "model": checkpoint.digest,
        "model_type": model_type,
        "data": data.sha256,
        "task": _own_settings(task),
        "dtype": settings.dtype,
        "max_length": settings.max_length,
    }


def _time_limit(task: EvaluationTask, settings: ScoreSettings) -> float:
    """Seconds until the worker is killed. Of a program it watches over the limit itself, and says what the limit is."""
    return task.timeout_seconds + _PROGRAM_GRACE_SECONDS if task.kind == "command" else settings.timeout_seconds


def _call_worker(
    checkpoint: Checkpoint,
    task: EvaluationTask,
    data: ExampleSet,
    model_type: ModelType,
    settings: ScoreSettings,
    report_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """What `measure` found; every value is finite."""
    request = Request(
        folder=checkpoint.folder,
        adapter=checkpoint.adapter.folder if checkpoint.adapter else None,
        model_type=model_type,
        task=task,
        data=local_path(data.uri) if data.uri else None,
        data_sha256=data.sha256,
        score=settings,
    )
    try:
        found = call_on_device(
            settings.devices, measure, request,
            timeout_seconds=_time_limit(task, settings), report_progress=report_progress,
        )  # fmt: skip
    except NonFiniteError as error:
        # The worker knows a folder; people know the model by its name.
        raise NonFiniteError(f"{checkpoint.name} on task {task.name!r}: {error}") from error
    for metric, values in found["values"].items():
        if broken := sum(not math.isfinite(value) for value in values):
            raise NonFiniteError(
                f"{checkpoint.name} on task {task.name!r}: {metric} is NaN or infinite on {broken} of "
                f"{len(values)} examples"
            )
    return found
