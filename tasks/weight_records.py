"""Records of weighing: merge weights, and how far they can be trusted."""

from dataclasses import dataclass, field
from typing import Any

from tasks.records import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Baseline:
    """A mixture and how it does on the examples that weights were chosen by."""

    name: str
    """`chosen`, `uniform`, or the name of the best single candidate."""
    weights: dict[str, float]
    loss: float
    """Mean over the examples, in nats."""
    loss_stderr: float
    general_loss: float | None = None
    """The same on the examples of general ability, where there are any."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A mixture that was measured while its weights were chosen."""

    weights: dict[str, float]
    """Candidate to share, or to omega with `task_arithmetic`."""
    loss: float
    """Mean over the examples, in nats."""
    loss_stderr: float
    general_loss: float | None = None
    """Mean over the examples of general ability, where there are any."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far the merge weights can be trusted."""

    effective_models: float
    """1 / sum of squared shares: 1 when one candidate has all the weight, N when N share it equally."""
    warnings: tuple[str, ...] = ()
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """Candidate to the 95 % bootstrap interval of its weight, over the examples; where these decide."""
    leave_one_out: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """Candidate to its least and largest weight when any one example is left out."""
    most_influential: int | None = None
    """The example (or batch, see `unit`), counted from 1, without which the weights change most."""
    influence: float | None = None
    """How far the weight that changes most moves when that example is left out."""
    at_temperatures: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Other temperatures, as text, to the weights they would give."""
    effective_at_temperatures: dict[str, float] = field(default_factory=dict[str, float])
    """The same temperatures to the effective number of models of those weights."""
    baselines: tuple["Baseline", ...] = ()
    """What was measured of the chosen mixture and of simpler choices on the examples; best of all to beat."""
    previous: dict[str, float] | None = None
    """The weights of the release that is live, by candidate; None where there is none or nothing was looked up."""
    tried: tuple["Tried", ...] = ()
    """The mixtures that the weights were chosen from, in the order of measuring: the curve of a sweep."""
    temperature: float | None = None
    """The softmax's, where `temperature: auto` found it."""
    unit: str = "example"
    """What was drawn and left out: each `example`, or with `loss: lm_cocktail`, which has no other losses, `batch`."""
    changes: tuple[str, ...] = ()
    """Sentences on what changed since that release. They depend on the night, so model cards leave them out."""


@dataclass(frozen=True, slots=True)
class MergeWeights:
    """One coefficient per candidate, in the order of the recipe."""

    strategy: str
    weights: dict[str, float]
    """`linear`: shares that sum to 1. `task_arithmetic`: the omega of each skill, 1 for the general model. Of a weight
    that differs from tensor to tensor, one number to stand for it: its mean over depth (`mean_over_depth`)."""
    trust: Trust
    by_depth: dict[str, Any] | None = None
    """What each candidate really counts with, in the forms of `tasks.layered`; None where `weights` says it all."""
    schema_version: int = SCHEMA_VERSION

    @property
    def settings(self) -> dict[str, Any]:
        """What each candidate counts with: a number, or numbers by depth or by tensor name."""
        return dict(self.weights if self.by_depth is None else self.by_depth)
