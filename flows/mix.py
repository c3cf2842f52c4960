"""LM-Cocktail's three calls: the same names, arguments and defaults, without its faults.

    from flows.mix import mix_models, mix_models_with_data, mix_models_by_layers

Plain functions over the steps that `cocktail merge` runs (`flows.direct`): no Prefect and no server. The merge is
streamed to a folder (without `output_path` one in the cache, for a moment), whatever the size of the models, and only
the finished model is loaded.

Each call returns the transformers model that LM-Cocktail returns: of a decoder `AutoModelForCausalLM`, of an encoder
`AutoModel` (the transformer inside a sentence embedder), of a reranker `AutoModelForSequenceClassification`, of an
encoder-decoder `AutoModelForSeq2SeqLM`. `model.mix_report` says what LM-Cocktail prints: the weights, and the losses
they come from. With `output_path` the same stands in `mix.json` there, beside all files of the first model (tokenizer,
sentence-transformers modules, prompts) with the merged tensors.

Unlike a recipe, which refuses models that do not descend from one base, these calls only log a warning of them:
LM-Cocktail mixes them, and a script that ran must go on running.
"""

import json
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.direct import merge_candidates, prepare, score_candidates
from flows.mix_arguments import (
    OutputDtype,
    PathText,
    choose_negatives,
    data_problems,
    given_weights,
    kind_problems,
    make_recipe,
    refuse,
)
from flows.mix_report import MixReport, describe_mix
from tasks.cache import ResultCache, open_cache
from tasks.checkpoint import MIX_FILE
from tasks.merge.merge import check_output
from tasks.recipe import Recipe
from tasks.records import to_json
from tasks.settings import CacheSettings, Loss, TensorDtype, loss_problem
from tasks.staging import commit, staged, write_file, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_AUTO_CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "reranker": "AutoModelForSequenceClassification",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


def mix_models(
    model_names_or_paths: Sequence[PathText],
    model_type: str,
    weights: Sequence[float],
    output_path: PathText | None = None,
    *,
    dtype: OutputDtype = "base",
    cache: PathText | None = None,
) -> "PreTrainedModel":
    """Mix models by given weights.

    Args:
        model_names_or_paths: Folders with safetensors, fine-tuned from one base, or names on the Hub (org/name, with
            @revision behind it if another than main is meant), which are downloaded into the cache. The first gives
            config, tokenizer and all other files.
        model_type: decoder, encoder, reranker or encoder-decoder.
        weights: One per model; their sum is 1 (within 0.001, then scaled to 1 exactly). May be negative.
        output_path: Folder to save the mixed model in. It appears whole or not at all. What an earlier call wrote
            there is replaced; a folder with anything else in it is refused.
        dtype: Of the mixed tensors: float32, float16, bfloat16, or base: each as in the first model. Sums are taken in
            float32 in any case.
        cache: Folder for digests of files and for downloads; the user's cache folder by default.

    Returns:
        The mixed model, on the CPU, in eval mode, with `mix_report`.

    Raises:
        ValueError: an argument makes no sense.
        PreflightError: models cannot be read or do not fit each other; all that is wrong is listed.
        NonFiniteError: a model holds NaN or infinity; nothing is saved.
        CheckpointError: there is something else at `output_path`.
        StoreError: `output_path` cannot be written.
    """
    refuse(list(kind_problems(model_names_or_paths, model_type)))
    shares = given_weights(model_names_or_paths, weights)
    recipe = make_recipe(model_names_or_paths, model_type, dtype, {"weigh": {"strategy": "given", "weights": shares}})
    return _mix(recipe, output_path, cache)


def mix_models_by_layers(
    model_names_or_paths: Sequence[PathText],
    model_type: str,
    weights: Sequence[float],
    output_path: PathText | None = None,
    *,
    dtype: OutputDtype = "base",
    cache: PathText | None = None,
) -> "PreTrainedModel":
    """`mix_models` by its other name: every merge here is streamed, so that there is no second way for big models."""
    return mix_models(model_names_or_paths, model_type, weights, output_path, dtype=dtype, cache=cache)


def mix_models_with_data(
    model_names_or_paths: Sequence[PathText],
    model_type: str,
    example_data: Sequence[Mapping[str, Any]],
    temperature: float = 5.0,
    batch_size: int = 2,
    max_input_length: int = 2048,
    neg_number: int = 7,
    output_path: PathText | None = None,
    *,
    loss: Loss = "default",
    devices: Literal["auto"] | Sequence[str] = "auto",
    score_dtype: TensorDtype = "float32",
    dtype: OutputDtype = "base",
    cache: PathText | None = None,
) -> "PreTrainedModel":
    """Mix models by softmax(-loss / temperature) of their losses on a few examples.

    Args:
        model_names_or_paths: See `mix_models`.
        model_type: See `mix_models`.
        example_data: About five rows of the task: `{"input", "output"}` for decoder and encoder-decoder,
            `{"messages"}` for a decoder with a chat template, `{"query", "pos": [...], "neg": [...]}` for encoder and
            reranker.
        temperature: Spread of the weights in nats; a lower one trusts the best model more.
        batch_size: Examples that fit into memory at once at full length. Only the loss lm_cocktail depends on it.
        max_input_length: Most tokens of an example; the model's own limit holds as well. Prompts lose their beginning.
        neg_number: Most negatives of a row. Of more, some are chosen, always the same ones for the same row.
        output_path: See `mix_models`.
        loss: default: per example, with the model's own pooling and prompts. lm_cocktail: the package's own numbers,
            of batches in their order (not for rerankers, which it cannot score).
        devices: auto: every CUDA device, else CPU cores; or names such as cuda:0. Models are scored in parallel.
        score_dtype: Precision of the forward pass.
        dtype: See `mix_models`.
        cache: Folder for losses that need not be computed twice; the user's cache folder by default.

    Returns:
        See `mix_models`; `mix_report` also has the losses.

    Raises:
        ExampleDataError: examples cannot be scored; all of them are named by row.
        NonFiniteError: a loss is NaN or infinite; nothing is mixed.
        DeviceError: a device or its worker process failed.
        Exception: see `mix_models`.
    """
    numbers = {"batch_size": batch_size, "max_input_length": max_input_length, "neg_number": neg_number}
    problems = [*kind_problems(model_names_or_paths, model_type), *data_problems(example_data, temperature, **numbers)]
    refuse([*problems, *([problem] if (problem := loss_problem(model_type, loss)) else [])])
    sections = {
        "examples": choose_negatives(example_data, model_type, neg_number),
        # No comparison with other mixtures: nobody would be shown it.
        "weigh": {"strategy": "loss", "temperature": temperature, "compare": False},
        "score": {
            "loss": loss,
            "batch_size": batch_size,
            "batch_tokens": batch_size * max_input_length,
            "max_length": max_input_length,
            "dtype": score_dtype,
            "devices": devices if isinstance(devices, str) else list(devices),
        },
    }
    return _mix(make_recipe(model_names_or_paths, model_type, dtype, sections), output_path, cache)


def _mix(recipe: Recipe, output_path: PathText | None, cache_folder: PathText | None) -> "PreTrainedModel":
    cache = open_cache(CacheSettings(folder=os.fspath(cache_folder) if cache_folder is not None else None))
    if output_path is None:
        with staged(cache.folder / "work" / "mixed") as folder:
            report = _write_mixed(recipe, folder, cache)
            model = _load(folder, report)
        # As LM-Cocktail's; the folder it was loaded from is gone.
        model.name_or_path = model.config.name_or_path = report.models[0].model
        return model
    goal = Path(output_path).expanduser()
    with _replacing(goal, recipe) as draft:
        report = _write_mixed(recipe, draft, cache)
    return _load(goal, report)


def _write_mixed(recipe: Recipe, folder: Path, cache: ResultCache) -> MixReport:
    """Write the mixed model and its report to a new folder."""
    planned, candidates = prepare(recipe, cache, folder)
    planned, candidates, scores, weights = score_candidates(recipe, planned, candidates, cache)
    merge_candidates(recipe, planned, candidates, weights, folder, cache)
    report = describe_mix(recipe, planned, candidates, scores, weights)
    logger.info("mixed %s", report)
    write_file(folder / MIX_FILE, (json.dumps(to_json(report), indent=2, ensure_ascii=False) + "\n").encode())
    return report


@contextmanager
def _replacing(goal: Path, recipe: Recipe) -> Generator[Path]:
    """A path for a new folder that takes the place of `goal` when all went well."""
    resolved = goal.resolve()
    if used := [candidate.model for candidate in recipe.candidates if candidate.model == str(resolved)]:
        raise ValueError(f"output_path: {used[0]} is one of the models that are mixed; name another folder")
    replaces = (resolved / MIX_FILE).is_file()
    if not replaces:
        check_output(goal)
    with ExitStack() as stack:
        with writing(resolved):
            draft, old = stack.enter_context(staged(resolved)), stack.enter_context(staged(resolved))
        yield draft
        with writing(resolved):
            if replaces:
                logger.info("%s: replacing what an earlier mix wrote there", goal)
                resolved.rename(old)
            try:
                commit(draft, resolved)
            except OSError:
                if replaces:
                    old.rename(resolved)
                raise


def _load(folder: Path, report: MixReport) -> "PreTrainedModel":
    # Late: its import takes seconds, and wrong arguments should be told at once.
    import transformers

    auto: Any = getattr(transformers, _AUTO_CLASSES[report.model_type])
    # None of the folder's code is run, whatever its config asks for.
    model: Any = auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    model.mix_report = report
    return model
