"""From checkpoints to what a merge reads: files, adapters on files and, where asked for, rows looked up by token.

The base decides everything but numbers: names, shapes, dtypes, tokenizer, chat template and all other files. Only a
union of vocabularies changes any of that: it adds rows, and the tokens that they belong to.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tasks.checkpoint import read_config, read_tensor_views
from tasks.depth import depth_of
from tasks.errors import CheckpointError
from tasks.lora.adapter import read_adapter
from tasks.merge.by_range import Ranges, RangeSource
from tasks.merge.checks import check_mergeable
from tasks.merge.inputs import Choice, formula_maker, leave_out_zeros
from tasks.merge.job import Job, Output
from tasks.merge.lora import LoraSource
from tasks.merge.sources import FileSource, TensorSource
from tasks.merge.vocabulary import Mapped, Tokenized, map_by_token
from tasks.records import Checkpoint
from tasks.tensors import FLOAT_DTYPES, TensorView
from tasks.tokens.rows import EmbeddingsRule, find_vocabulary_tensors
from tasks.tokens.vocabularies import TOKENIZER_FILE, extend_tokenizer, read_vocabulary

logger = logging.getLogger(__name__)

_Views = Mapping[Path, Mapping[str, TensorView]]
_NO_RANGES: Mapping[Path, Ranges] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OpenModels:
    """The models of a merge, ready to be read."""

    base: TensorSource
    candidates: tuple[TensorSource, ...]
    """In the order they were given."""
    views: Mapping[str, TensorView]
    """What the output is laid out from: the base's own tensors, with as many rows as the output has."""
    changed_files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Path to content of files without tensors that are not as in the template."""
    n_added_tokens: int = 0
    """Tokens that the output has and the base has not."""


def open_models(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    template: Checkpoint,
    embeddings: EmbeddingsRule | None = None,
    ranges: Mapping[Path, Ranges] = _NO_RANGES,
) -> OpenModels:
    """Open all models of a merge and check that they belong together.

    Args:
        base: Decides tensor names, shapes and dtypes.
        candidates: What is merged; adapters are added to their models while these are read.
        template: Where files without tensors come from.
        embeddings: How rows of tokens are merged; None: all models have the same tokens in the same rows.
        ranges: Folder of a model whose weights are elsewhere to what reads them; see `tasks.merge.by_range`.

    Raises:
        ValueError: with `embeddings`, the template is not the base.
        CheckpointError: a model or an adapter is damaged, or has no tokenizer.json to merge by.
        CheckpointMismatchError: models do not fit the base; all of them are listed.
    """
    if embeddings is not None and template.folder != base.folder:
        raise ValueError(
            f"embeddings: {embeddings} numbers tokens as the base does, so its tokenizer must be the output's; "
            f"expected the base as template, {base.folder}, found {template.folder}"
        )
    models = [base, *candidates]
    views = {folder: read_tensor_views(folder) for folder in {each.folder for each in (*models, template)}}
    own = views[base.folder]
    tensors = find_vocabulary_tensors(own, read_config(base.folder)) if embeddings is not None else []
    check_mergeable(base, [*candidates, template], views, tensors)
    sources = [_open_model(model, views, ranges) for model in models]
    if embeddings is None:
        return OpenModels(sources[0], tuple(sources[1:]), own)
    mapped = _look_up_by_token(embeddings, models, sources, tensors)
    new = mapped.tokens.vocabulary.new
    changed = extend_tokenizer(template.folder, new, mapped.tokens.n_rows)
    return OpenModels(mapped.base, mapped.candidates, mapped.tokens.output_views(own), changed, len(new))


def make_job(models: OpenModels, choices: Sequence[Choice], places: Sequence[Path]) -> Job:
    """The job with what counts in any of the outputs; each output's formulas get what counts in it.

    Args:
        models: What is merged.
        choices: Of each output; they differ in their weights only.
        places: Folder of each output.
    """
    depths = depth_of(name for name, view in models.views.items() if view.dtype in FLOAT_DTYPES)
    choices = [leave_out_zeros(choice, depths) for choice in choices]
    counted = [each for each in models.candidates if any(each.name in choice.candidates for choice in choices)]
    index_of = {each.name: index for index, each in enumerate(counted)}
    outputs = [
        Output(place, formula_maker(choice, depths), tuple(index_of[name] for name in choice.candidates))
        for choice, place in zip(choices, places, strict=True)
    ]
    return Job(models.base, counted, outputs, reads_base=choices[0].reads_base)


def _open_model(model: Checkpoint, views: _Views, ranges: Mapping[Path, Ranges]) -> TensorSource:
    read, own = ranges.get(model.folder), views[model.folder]
    files = RangeSource(model.name, own, model.folder, read) if read else FileSource(model.name, own)
    if model.adapter is None:
        return files
    return LoraSource(model.name, files, read_adapter(model.adapter.folder, own))


def _look_up_by_token(
    rule: EmbeddingsRule, models: Sequence[Checkpoint], sources: Sequence[TensorSource], tensors: Sequence[str]
) -> Mapped:
    """The base first, then the candidates; an adapter has the tokens of its model."""
    files = {model.folder: model.folder / TOKENIZER_FILE for model in models}
    if missing := [str(folder) for folder, file in files.items() if not file.is_file()]:
        raise CheckpointError(
            f"embeddings: {rule} looks rows up by token, and there is no {TOKENIZER_FILE} in {', '.join(missing)}; "
            "save the tokenizer there in its fast form, or leave embeddings out"
        )
    vocabularies = {folder: read_vocabulary(file) for folder, file in files.items()}
    base, *candidates = (
        Tokenized(source, vocabularies[model.folder]) for model, source in zip(models, sources, strict=True)
    )
    mapped = map_by_token(rule, base, candidates, tensors)
    tokens = mapped.tokens
    logger.info(
        "embeddings: %s: %d tokens, %d of them new, in %d rows of %s",
        rule, len(tokens.vocabulary.ids), len(tokens.vocabulary.new), tokens.n_rows, ", ".join(sorted(tokens.tensors)),
    )  # fmt: skip
    for note in tokens.notes:
        logger.info("embeddings: %s", note)
    return mapped
