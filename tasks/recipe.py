"""The recipe: which models, which examples, how to weigh, how to merge, what to check, where to publish.

One pydantic model is the YAML file, the flow's parameter and the form in the Prefect UI. Only planning and publishing
see it whole; every other step takes a section of it (`tasks.settings`) or plain arguments.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.device_names import parts_of
from tasks.evaluation_kinds import KINDS, RIGHT_OR_WRONG, default_metric
from tasks.evaluation_settings import EvaluationTask, GateSettings
from tasks.forms import PINNED, RARE
from tasks.method_problems import method_problems, train_size_problem
from tasks.references import canonical
from tasks.settings import (
    CandidateSettings,
    ConnectionSettings,
    MergeSettings,
    ModelType,
    PublishSettings,
    ScoreSettings,
    Section,
    loss_problem,
)
from tasks.values import ExampleRows, ExamplesText, Name, ReferenceText
from tasks.weigh_problems import strategy_problems
from tasks.weigh_settings import EXPLORING, MEASURING, WeighSettings


class Recipe(Section):
    """A model refresh."""

    name: Name = Field(description="Name of the refreshed model; releases lie under it.")
    model_type: ModelType = Field(
        description="decoder: a causal language model. encoder: a sentence embedder. reranker: a cross-encoder that "
        "scores a query with a document. encoder-decoder: a sequence-to-sequence model."
    )
    base: ReferenceText | None = Field(
        default=None,
        description="The model all candidates were fine-tuned from. Left out: the first candidate is the reference.",
    )
    base_digest: str | None = Field(
        default=None,
        description="Content the base must have (sha256:...); lock files write it.",
        json_schema_extra=PINNED,
    )
    candidates: Annotated[list[CandidateSettings], Field(min_length=1)] = Field(
        description="What is mixed, in this order."
    )
    allow_unrelated: bool = Field(
        default=False,
        description="Merge candidates that do not descend from the base (the result is rarely useful).",
        json_schema_extra=RARE,
    )
    allow_drift: bool = Field(
        default=False,
        description="Merge candidates that are themselves releases of this name (merges of merges drift).",
        json_schema_extra=RARE,
    )
    examples: ExamplesText | ExampleRows | None = Field(
        default=None,
        description='Examples of the target task: a JSON Lines file, or the rows themselves. {"input", "output"} for '
        'decoders and encoder-decoders, {"messages"} for decoders with a chat template, {"query", "pos", "neg"} for '
        "encoders and rerankers.",
    )
    examples_sha256: str | None = Field(
        default=None, description="Content the examples must have; lock files write it.", json_schema_extra=PINNED
    )
    score: ScoreSettings = Field(default=ScoreSettings(), description="How candidates are scored.")
    weigh: WeighSettings = Field(default=WeighSettings(), description="How losses become weights.")
    merge: MergeSettings = Field(default=MergeSettings(), description="How tensors are merged.")
    evaluate: list[EvaluationTask] = Field(default=[], description="Measurements on held-out data.")
    gate: GateSettings = Field(default=GateSettings(), description="What the merged model must show.")
    publish: PublishSettings | None = Field(default=None, description="Where the release goes; `refresh` needs it.")

    runner: Literal["threads", "ray"] = Field(
        default="threads",
        description="Where models are scored and evaluated. threads: on this machine's devices. ray: on the Ray "
        "cluster that RAY_ADDRESS names, each on devices of its own (pip install 'lm-cocktail-flows[ray]').",
        json_schema_extra=RARE,
    )
    connections: ConnectionSettings = Field(
        default=ConnectionSettings(), description="Who reads and writes S3 and the Hub; never the secrets themselves."
    )

    @model_validator(mode="after")
    def _check_parts_agree(self) -> "Recipe":
        problems = [
            *_name_problems(self),
            *_weigh_problems(self),
            *strategy_problems(self.candidates, self.weigh, self.merge),
            *method_problems(self.base, self.candidates, self.weigh, self.merge),
            *_gate_problems(self),
            *_split_problems(self),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def needs_examples(self) -> bool:
        """Whether candidates are scored at all."""
        return self.weigh.strategy in MEASURING

    def candidate_with_role(self, role: Literal["target", "general"]) -> CandidateSettings | None:
        """The candidate of a role that only one can have."""
        return next((candidate for candidate in self.candidates if candidate.role == role), None)


def _name_problems(recipe: Recipe) -> Iterator[str]:
    counts = Counter(candidate.name for candidate in recipe.candidates)
    for name in (name for name, count in counts.items() if count > 1):
        yield f"candidates: the name {name!r} is used {counts[name]} times; weights and tables need one name each"
    for name in sorted({"merged", "champion", "chosen", "uniform"} & set(counts)):
        yield f"candidates: the name {name!r} is taken by the pipeline itself; choose another"
    reference = recipe.base or recipe.candidates[0].model
    for candidate in recipe.candidates:
        if candidate.name == "base" and canonical(candidate.model) != canonical(reference):
            yield f"candidates: the one named 'base' is {candidate.model}, but the base model is {reference}"
        elif candidate.name == "base" and candidate.adapter is not None:
            yield f"candidates: the one named 'base' has the adapter {candidate.adapter}, so it is not the base itself"
    for candidate in recipe.candidates:
        if candidate.adapter_digest is not None and candidate.adapter is None:
            yield f"candidates: {candidate.name!r} has an adapter_digest and no adapter that could have this content"
    task_counts = Counter(task.name for task in recipe.evaluate)
    for name in (name for name, count in task_counts.items() if count > 1):
        yield f"evaluate: the name {name!r} is used {task_counts[name]} times; gate rules need one name each"


def _split_problems(recipe: Recipe) -> Iterator[str]:
    if not recipe.merge.split:
        return
    if recipe.runner != "ray":
        yield f"merge.split: nodes of a cluster share the merge, and runner is {recipe.runner}; write runner: ray"
    if recipe.merge.device != "cpu":
        yield (
            f"merge.split: nodes merge on their processors, and merge.device is {recipe.merge.device}; leave one of "
            "them out"
        )


def _weigh_problems(recipe: Recipe) -> Iterator[str]:
    weigh, names = recipe.weigh, [candidate.name for candidate in recipe.candidates]
    targets = [candidate.name for candidate in recipe.candidates if candidate.role == "target"]
    if len(targets) > 1:
        yield f"candidates: {', '.join(targets)} all have role target; one merge has one target"
    if weigh.alpha is not None and not targets:
        yield "weigh.alpha: it is the share of the candidate with role: target, and no candidate has that role"
    if weigh.alpha is not None and weigh.strategy != "loss":
        yield f"weigh.alpha: strategy {weigh.strategy} has no alpha; leave it out or use strategy: loss"
    if weigh.strategy == "loss" and targets and weigh.alpha is None:
        yield f"weigh.alpha: candidate {targets[0]!r} is the target, so say what share it gets (0.5 is a good start)"
    if weigh.strategy == "loss" and targets and len(names) == 1:
        yield "candidates: the target alone cannot be mixed; add the base model or other candidates"
    if recipe.needs_examples and not recipe.examples:
        yield f"examples: strategy {weigh.strategy} measures the candidates on examples, and there are none"
    if recipe.needs_examples and (problem := loss_problem(recipe.model_type, recipe.score.loss)):
        yield f"score.{problem}"
    devices = [] if recipe.score.devices == "auto" else recipe.score.devices
    if weigh.strategy in EXPLORING and (joined := [name for name in devices if len(parts_of(name)) > 1]):
        yield (
            f"score.devices: strategy {weigh.strategy} mixes models in the memory of a single device, found "
            f"{', '.join(joined)}; name single ones, or use strategy loss"
        )
    if weigh.weights is not None and weigh.strategy != "given":
        yield f"weigh.weights: strategy {weigh.strategy} computes the weights itself; leave them out or use given"
    if weigh.weights is not None and (unknown := sorted(set(weigh.weights) - set(names))):
        yield f"weigh.weights: {', '.join(unknown)} is no candidate; candidates are {', '.join(names)}"
    if weigh.weights is not None and (missing := [name for name in names if name not in weigh.weights]):
        yield f"weigh.weights: no weight for {', '.join(missing)}; write 0 to leave a candidate out"
    if weigh.strategy == "data_size" and (problem := train_size_problem(recipe.candidates)):
        yield problem


def _gate_problems(recipe: Recipe) -> Iterator[str]:
    tasks = [task.name for task in recipe.evaluate]
    for number, rule in enumerate(recipe.gate.rules):
        if rule.task not in tasks:
            known = ", ".join(tasks) or "none"
            yield f"gate.rules[{number}]: there is no evaluation task {rule.task!r}; tasks are {known}"
    metrics = {
        task.name: task.metric or default_metric(task.kind) for task in recipe.evaluate if KINDS[task.kind].metrics
    }
    for number, rule in enumerate(recipe.gate.rules):
        if rule.test == "mcnemar" and metrics.get(rule.task, RIGHT_OR_WRONG[0]) not in RIGHT_OR_WRONG:
            yield (
                f"gate.rules[{number}]: test mcnemar counts right answers, and {metrics[rule.task]} of task "
                f"{rule.task!r} is no share of them; use test: bootstrap"
            )
    for task in recipe.evaluate:
        if recipe.model_type not in (types := KINDS[task.kind].model_types):
            yield (
                f"evaluate: task {task.name!r} is of kind {task.kind}, which measures models of type "
                f"{', '.join(types)}; this recipe is for {recipe.model_type}"
            )
    programs = [task.name for task in recipe.evaluate if task.kind == "command"]
    if programs and (adapted := [candidate.name for candidate in recipe.candidates if candidate.adapter]):
        yield (
            f"evaluate: a program is given the folder of a model, and {', '.join(adapted)} with an adapter lies in "
            f"none (task {', '.join(programs)}); merge the adapter with PEFT (merge_and_unload) and name the result"
        )
