"""Merge embeddings by token, not by row, where candidates number their tokens in other ways than the base.

Every source is shown with the rows of the output: row i of each is the row that it has for the token that is i in the
output. What stands where a model has no such token:

- the base has it: the base's row, so that in this candidate the token counts as unchanged;
- only candidates have it (`embeddings: union`): the mean of the rows of those that have it, for the base, too, from
  which task vectors are measured; the average with equal weights is that mean;
- a row of the base that is no token (rows are often padded to a round number): the base's row.

The defaults are those of mergekit's tokenizer section (docs/merge_methods.md and README of arcee-ai/mergekit).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tasks.errors import CheckpointError, CheckpointMismatchError
from tasks.merge.row_maps import MEAN, RowMappedSource, Rows
from tasks.merge.sources import TensorSource
from tasks.messages import list_lines, list_some
from tasks.tensors import FLOAT_DTYPES, TensorView
from tasks.vocabularies import OutputVocabulary, Vocabulary, unite, vocabulary_size

# Modules that have a row for every token, in the families of models that transformers has.
_MODULES = frozenset({
    "embed_tokens", "wte", "shared", "word_embeddings", "word_embedding", "tok_embeddings", "token_embedding",
    "embed_in", "lm_head", "embed_out", "output", "decoder", "predictions", "vocab_projector", "generator_lm_head",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A model that is merged, with its tokenizer."""

    source: TensorSource
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class Mapped:
    """The models of a merge, all with the same tokens in the same rows."""

    base: TensorSource
    candidates: tuple[TensorSource, ...]
    tensors: frozenset[str]
    """Names of those with a row for every token."""
    n_rows: int
    """Of the output's embeddings."""
    new: tuple[dict[str, Any], ...]
    """Entries for the output's tokenizer.json, see `tasks.vocabularies.extend_tokenizer`."""
    notes: tuple[str, ...]
    """For people: what each candidate has more or less than the output."""

    def output_views(self, base: Mapping[str, TensorView]) -> dict[str, TensorView]:
        """The base's views with as many rows as the output has, from which it is laid out; dtypes stay the base's."""
        return {
            name: replace(view, shape=(self.n_rows, *view.shape[1:])) if name in self.tensors else view
            for name, view in base.items()
        }


def find_vocabulary_tensors(base: Mapping[str, TensorView], config: Mapping[str, Any]) -> list[str]:
    """Names of the base's tensors that have a row for every token: embeddings, heads, and biases of heads.

    Args:
        base: Full tensor name to view.
        config: The base's config.json, which says how many rows they have.

    Raises:
        CheckpointError: there is none; or a tensor has such a dimension that we do not know to count tokens.
    """
    size = vocabulary_size(config)
    having = [view for view in base.values() if size in view.shape and view.dtype in FLOAT_DTYPES]
    found = [
        view.name for view in having if view.shape[0] == size and len(view.shape) < 3 and _module(view) in _MODULES
    ]
    if not found:
        raise CheckpointError(
            f"embeddings: no tensor of the base is known to have a row for each of the {size} tokens that config.json "
            "says (vocab_size); leave embeddings out"
        )
    unknown = [f"{view.name!r} {list(view.shape)}" for view in having if view.name not in found]
    if unknown and list(_numbers(config)).count(size or 0) == 1:
        raise CheckpointError(
            f"embeddings: these tensors of the base have {size} elements in a dimension as there are tokens, but it is "
            f"not known whether they belong to tokens: {list_some(unknown)}; leave embeddings out"
        )
    return found


def map_by_token(
    rule: Literal["base", "union"], base: Tokenized, candidates: Sequence[Tokenized], tensors: Collection[str]
) -> Mapped:
    """Show all models with the same tokens in the same rows.

    Args:
        rule: `base`: the base's tokens and rows; what a candidate has more is left out. `union`: after them, the tokens
            that candidates added, in the rows that pad the base's embeddings as far as these go.
        base: The common ancestor. Its tokenizer is the output's, but for the new tokens.
        candidates: What is merged, in this order.
        tensors: Names of those with a row for every token, see `find_vocabulary_tensors`.

    Raises:
        CheckpointMismatchError: a model has not all of the tensors, or a token that has no row; or with `union` tokens
            that cannot be added. All offenders are listed.
    """
    models = [base, *candidates]
    n_rows_of = _count_rows(models, tensors)
    output = OutputVocabulary(base.vocabulary.ids)
    if rule == "union":
        output = unite(base.vocabulary, {each.source.name: each.vocabulary for each in candidates})
    n_rows = max(n_rows_of[0], max(output.ids.values(), default=-1) + 1)
    sources = [model.source for model in models]
    mapped = [
        RowMappedSource(source.name, source, sources, _plan_rows(index, models, output, n_rows), frozenset(tensors))
        for index, source in enumerate(sources)
    ]
    notes = tuple(note for each in candidates for note in _notes(each, base.vocabulary, output))
    return Mapped(mapped[0], tuple(mapped[1:]), frozenset(tensors), n_rows, output.new, notes)


def _count_rows(models: Sequence[Tokenized], tensors: Collection[str]) -> list[int]:
    """Rows of each model's embeddings."""
    problems: list[str] = []
    counts: list[int] = []
    for model in models:
        name = model.source.name
        views = {tensor: model.source.describe(tensor) for tensor in tensors}
        problems += [f"{name}: it lacks tensor {tensor!r}" for tensor, view in views.items() if view is None]
        shapes = {tensor: view.shape for tensor, view in views.items() if view is not None}
        if len({shape[0] for shape in shapes.values()}) > 1:
            problems.append(f"{name}: its tensors have rows for {_listed(shapes)} tokens")
        counts.append(min((shape[0] for shape in shapes.values()), default=0))
        beyond = [f"{token!r} ({number})" for token, number in model.vocabulary.ids.items() if number >= counts[-1]]
        if beyond and shapes:
            problems.append(f"{name}: its embeddings have {counts[-1]} rows, too few for {list_some(beyond)}")
        problems += [
            f"{name}: tensor {tensor!r} has rows of shape {list(shape[1:])}, the base's {list(expected.shape[1:])}"
            for tensor, shape in shapes.items()
            if (expected := models[0].source.describe(tensor)) and expected.shape[1:] != shape[1:]
        ]
    if problems:
        raise CheckpointMismatchError(f"embeddings cannot be merged by token:{list_lines(problems)}")
    return counts


def _plan_rows(index: int, models: Sequence[Tokenized], output: OutputVocabulary, n_rows: int) -> Rows:
    """The rows of one of the models."""
    base_ids, own_ids = models[0].vocabulary.ids, models[index].vocabulary.ids
    model, row = np.zeros(n_rows, np.int32), np.arange(n_rows, dtype=np.int64)
    means: dict[int, tuple[tuple[int, int], ...]] = {}
    for token, number in output.ids.items():
        if (own := own_ids.get(token)) is not None:
            model[number], row[number] = index, own
        elif token not in base_ids:
            model[number] = row[number] = MEAN
            means[number] = tuple(
                (other, each.vocabulary.ids[token]) for other, each in enumerate(models) if token in each.vocabulary.ids
            )
    return Rows(model, row, means)


def _notes(candidate: Tokenized, base: Vocabulary, output: OutputVocabulary) -> Iterator[str]:
    name, ids = candidate.source.name, candidate.vocabulary.ids
    if missing := [repr(token) for token in base.ids if token not in ids]:
        yield f"{name}: it lacks {len(missing)} of the base's tokens, which count as unchanged: {list_some(missing)}"
    own = [token for token in ids if token not in base.ids]
    if left_out := [repr(token) for token in own if token not in output.ids]:
        yield f"{name}: {len(left_out)} of its tokens are left out: {list_some(left_out)}"
    if added := [repr(token) for token in own if token in output.ids]:
        yield f"{name}: it has {len(added)} tokens that the base lacks: {list_some(added)}"


def _module(view: TensorView) -> str:
    """The last part of the name of the module that a tensor belongs to."""
    return view.name_in_file.rpartition(".")[0].rpartition(".")[2]


def _numbers(config: Mapping[str, Any]) -> Iterator[int]:
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield value


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{shape[0]} ({tensor})" for tensor, shape in shapes.items())
