"""Vocabularies that differ: can a candidate's rows be looked up by token, and what becomes of the base's rows?"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.errors import CheckpointError, CheckpointMismatchError
from tasks.plan.compatibility import ModelHeaders
from tasks.plan.findings import Findings
from tasks.tensors import TensorView
from tasks.tokens.rows import EmbeddingsRule, TokenizedViews, find_vocabulary_tensors, plan_tokens, row_problems
from tasks.tokens.vocabularies import TOKENIZER_FILE, read_vocabulary


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The base, with which tokens of candidates are compared."""

    rule: EmbeddingsRule
    base: TokenizedViews
    tensors: tuple[str, ...]
    """Names of those with a row for every token."""

    def check(self, candidate: ModelHeaders) -> Findings:
        """What keeps a candidate from being merged by token; if nothing does, its tokens in words, as warnings.

        Raises:
            CheckpointError: its tokenizer.json is no JSON.
        """
        model = _read(candidate)
        if problems := list(row_problems(model, self.base, self.tensors)):
            return Findings(problems)
        try:
            return Findings(warnings=list(plan_tokens(self.rule, self.base, [model], self.tensors).notes))
        except CheckpointMismatchError as error:
            return Findings([str(error)])

    def output_views(self, candidates: Iterable[ModelHeaders]) -> dict[str, TensorView]:
        """The base's tensors with the rows of the merged model, of candidates that `check` finds no problem with."""
        models = [_read(candidate) for candidate in candidates]
        return plan_tokens(self.rule, self.base, models, self.tensors).output_views(self.base.views)


def open_token_rows(rule: EmbeddingsRule | None, base: ModelHeaders, findings: Findings) -> TokenRows | None:
    """Find the base's tokens and the tensors that have rows for them.

    Args:
        rule: As the recipe says.
        base: Of the recipe.
        findings: Told what keeps candidates from being merged by token with this base.

    Returns:
        None if that is so, or nothing was asked for.
    """
    if rule is None:
        return None
    if TOKENIZER_FILE not in base.checkpoint.files:
        findings.problems.append(
            f"the base: embeddings: {rule} looks rows up by token, and it has no {TOKENIZER_FILE}; save its tokenizer "
            "in the fast form, or leave embeddings out"
        )
        return None
    try:
        rows = TokenRows(rule, _read(base), tuple(find_vocabulary_tensors(base.views, base.config)))
    except CheckpointError as error:
        findings.problems.append(f"the base: {base.explain(error)}")
        return None
    problems = list(row_problems(rows.base, rows.base, rows.tensors))
    findings.problems += problems
    return None if problems else rows


def any_rows(rule: EmbeddingsRule | None, rows: TokenRows | None, base: ModelHeaders) -> Collection[str] | None:
    """Tensors whose rows need not be as many as the base's; all where it is not known which; None without a rule."""
    if rule is None:
        return None
    return rows.tensors if rows else base.views


def _read(model: ModelHeaders) -> TokenizedViews:
    return TokenizedViews(model.label, model.views, read_vocabulary(model.folder / TOKENIZER_FILE))
