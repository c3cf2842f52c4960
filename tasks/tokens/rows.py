"""Which rows a merged model has for its tokens, where candidates number theirs in other ways than the base.

Answered from headers and tokenizers, before a weight is read: `cocktail plan` asks here what a merge would do.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.errors import CheckpointError, CheckpointMismatchError
from tasks.messages import list_lines, list_some
from tasks.tensors import FLOAT_DTYPES, TensorView
from tasks.tokens.vocabularies import OutputVocabulary, Vocabulary, unite, vocabulary_size

EmbeddingsRule = Literal["base", "union"]
"""base: the base's tokens; what a candidate has more is left out. union: after them, tokens that candidates added."""

# Modules that have a row for every token, in the families of models that transformers has.
_MODULES = frozenset({
    "embed_tokens", "wte", "shared", "word_embeddings", "word_embedding", "tok_embeddings", "token_embedding",
    "embed_in", "lm_head", "embed_out", "output", "decoder", "predictions", "vocab_projector", "generator_lm_head",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenizedViews:
    """A model as its headers and its tokenizer show it."""

    name: str
    views: Mapping[str, TensorView]
    """Of those tensors, at least, that have a row for every token."""
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """Tokens and rows of the output."""

    tensors: frozenset[str]
    """Names of those with a row for every token."""
    n_rows: int
    """Of each of them in the output."""
    vocabulary: OutputVocabulary
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


def plan_tokens(
    rule: EmbeddingsRule, base: TokenizedViews, candidates: Sequence[TokenizedViews], tensors: Collection[str]
) -> TokenPlan:
    """Number the output's tokens and count its rows.

    Args:
        rule: Whose tokens it has. New ones take the rows that pad the base's embeddings, as far as these go.
        base: Its tokenizer is the output's, but for the new tokens.
        candidates: What is merged, in this order.
        tensors: Names of those with a row for every token, see `find_vocabulary_tensors`.

    Raises:
        CheckpointMismatchError: a model has not all of the tensors, or a token that has no row; or with `union` tokens
            that cannot be added. All offenders are listed.
    """
    problems = [problem for model in (base, *candidates) for problem in row_problems(model, base, tensors)]
    if problems:
        raise CheckpointMismatchError(f"embeddings cannot be merged by token:{list_lines(problems)}")
    output = OutputVocabulary(base.vocabulary.ids)
    if rule == "union":
        output = unite(base.vocabulary, {each.name: each.vocabulary for each in candidates})
    base_rows = max((base.views[tensor].shape[0] for tensor in tensors), default=0)
    n_rows = max(base_rows, max(output.ids.values(), default=-1) + 1)
    notes = tuple(note for each in candidates for note in _notes(each, base.vocabulary, output))
    return TokenPlan(frozenset(tensors), n_rows, output, notes)


def row_problems(model: TokenizedViews, base: TokenizedViews, tensors: Collection[str]) -> Iterator[str]:
    """Say what keeps a model's rows from being looked up by its tokens; nothing if they can be.

    Args:
        model: The base itself, or a candidate.
        base: Whose rows decide the length of a row.
        tensors: Names of those with a row for every token.
    """
    yield from (f"{model.name}: it lacks tensor {tensor!r}" for tensor in tensors if tensor not in model.views)
    shapes = {tensor: model.views[tensor].shape for tensor in tensors if tensor in model.views}
    if len({shape[0] for shape in shapes.values()}) > 1:
        yield f"{model.name}: its tensors have rows for {_listed(shapes)} tokens"
    n_rows = min((shape[0] for shape in shapes.values()), default=0)
    beyond = [f"{token!r} ({number})" for token, number in model.vocabulary.ids.items() if number >= n_rows]
    if beyond and shapes:
        yield f"{model.name}: its embeddings have {n_rows} rows, too few for {list_some(beyond)}"
    for tensor, shape in shapes.items():
        if tensor in base.views and shape[1:] != (expected := base.views[tensor].shape)[1:]:
            yield (
                f"{model.name}: tensor {tensor!r} has rows of shape {list(shape[1:])}, the base's {list(expected[1:])}"
            )


def _notes(candidate: TokenizedViews, base: Vocabulary, output: OutputVocabulary) -> Iterator[str]:
    name, ids = candidate.name, candidate.vocabulary.ids
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
