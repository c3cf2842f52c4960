"""What a mixed model was made of: what LM-Cocktail prints, kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.night_records import Plan
from tasks.recipe import Recipe
from tasks.records import Checkpoint, Score
from tasks.trust_summaries import scoring_sentences
from tasks.weight_records import MergeWeights


@dataclass(frozen=True, slots=True)
class MixedModel:
    """One of the models that were mixed."""

    model: str
    """Its folder, or the reference it was given by."""
    revision: str
    """Digest of its content."""
    weight: float
    loss: float | None
    """Mean over the examples, in nats; None where weights were given."""
    loss_stderr: float | None


@dataclass(frozen=True, slots=True)
class MixReport:
    """What a merged model was made of; `model.mix_report` and `mix.json`."""

    model_type: str
    models: tuple[MixedModel, ...]
    """In the order of `model_names_or_paths`."""
    loss: str | None = None
    """default or lm_cocktail; None where weights were given."""
    temperature: float | str | None = None
    n_examples: int | None = None
    examples_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    """What makes the merge, its losses or its weights doubtful."""

    @property
    def weights(self) -> list[float]:
        """The weights alone, in the order of the models."""
        return [model.weight for model in self.models]

    def __str__(self) -> str:
        losses = ["" if model.loss is None else f" (loss {model.loss:.4f})" for model in self.models]
        parts = zip(self.models, losses, strict=True)
        return ", ".join(f"{model.model} {model.weight:.4g}{loss}" for model, loss in parts)


def describe_mix(
    recipe: Recipe, planned: Plan, candidates: Sequence[Checkpoint], scores: Sequence[Score], weights: MergeWeights
) -> MixReport:
    """The report of a mix; `scores` is empty where weights were given."""
    by_name = {score.candidate: score for score in scores}
    models: list[MixedModel] = []
    for candidate in candidates:
        score, weight = by_name.get(candidate.name), weights.weights[candidate.name]
        losses = (score.loss, score.loss_stderr) if score else (None, None)
        models.append(MixedModel(candidate.model, candidate.revision, weight, *losses))
    return MixReport(
        recipe.model_type,
        tuple(models),
        loss=recipe.score.loss if scores else None,
        temperature=recipe.weigh.temperature if scores else None,
        n_examples=planned.examples.n if planned.examples else None,
        examples_sha256=planned.examples.sha256 if planned.examples else None,
        warnings=(*planned.warnings, *scoring_sentences(scores), *weights.trust.warnings),
    )
