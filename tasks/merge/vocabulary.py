"""Merge embeddings by token, not by row, where candidates number their tokens in other ways than the base.

Every source is shown with the rows of the output: row i of each is the row that it has for the token that is i in the
output. What stands where a model has no such token:

- the base has it: the base's row, so that in this candidate the token counts as unchanged;
- only candidates have it (`embeddings: union`): the mean of the rows of those that have it, for the base, too, from
  which task vectors are measured; the average with equal weights is that mean;
- a row of the base that is no token (rows are often padded to a round number): the base's row.

The defaults are those of mergekit's tokenizer section (docs/merge_methods.md and README of arcee-ai/mergekit).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.merge.row_maps import MEAN, RowMappedSource, Rows
from tasks.merge.sources import TensorSource
from tasks.tokens.rows import EmbeddingsRule, TokenizedViews, TokenPlan, plan_tokens
from tasks.tokens.vocabularies import OutputVocabulary, Vocabulary


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
    tokens: TokenPlan


def map_by_token(
    rule: EmbeddingsRule, base: Tokenized, candidates: Sequence[Tokenized], tensors: Collection[str]
) -> Mapped:
    """Show all models with the same tokens in the same rows; see `tasks.tokens.rows.plan_tokens` for what these are.

    Args:
        rule: Whose tokens the output has.
        base: The common ancestor. Its tokenizer is the output's, but for the new tokens.
        candidates: What is merged, in this order.
        tensors: Names of those with a row for every token, see `tasks.tokens.rows.find_vocabulary_tensors`.

    Raises:
        CheckpointMismatchError: a model has not all of the tensors, or a token that has no row; or with `union` tokens
            that cannot be added. All offenders are listed.
    """
    models = [base, *candidates]
    described, *others = (_describe(model, tensors) for model in models)
    tokens = plan_tokens(rule, described, others, tensors)
    sources = [model.source for model in models]
    mapped = [
        RowMappedSource(
            source.name, source, sources, _plan_rows(index, models, tokens.vocabulary, tokens.n_rows), tokens.tensors
        )
        for index, source in enumerate(sources)
    ]
    return Mapped(mapped[0], tuple(mapped[1:]), tokens)


def _describe(model: Tokenized, tensors: Collection[str]) -> TokenizedViews:
    views = {tensor: view for tensor in tensors if (view := model.source.describe(tensor)) is not None}
    return TokenizedViews(model.source.name, views, model.vocabulary)


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
