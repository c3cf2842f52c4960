"""What crosses task borders: references, digests and numbers, never tensors.

All records are frozen and turn into JSON and back without loss (`to_json`, `from_json`). Losses are in nats.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from tasks.aggregates import Aggregate, aggregate, standard_error
from tasks.references import local_path

SCHEMA_VERSION = 1

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The content of one file."""

    sha256: str
    """64 lower-case hex digits."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model of which every file is known by its content."""

    name: str
    """What the recipe calls it (a candidate's name), or `base`, `merged`, `champion`."""
    model: str
    """The reference it came from, as the recipe gives it with paths made absolute."""
    revision: str
    """What the reference resolved to: a commit, a version, or `sha256:...` of a folder's content."""
    uri: str
    """Where its files can be read now: `file:///models/news`; before download also `s3://...` or
    `hub://org/name@<commit>`."""
    files: dict[str, FileDigest]
    """Path inside the checkpoint (with `/`) to content, sorted by path. Notes such as README.md are left out."""
    licence: str | None = None
    """As its card states it; None if it states none. No part of the content."""
    adapter: "Checkpoint | None" = None
    """A LoRA adapter on these files: then the model is both together, and no file on disk holds its tensors."""
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """sha256 over all paths and contents: equal for equal models, wherever they lie."""
        lines = "".join(f"{path}\0{self.files[path].sha256}\n" for path in sorted(self.files))
        if self.adapter is not None:
            lines += f"adapter\0{self.adapter.digest}\n"
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def without_adapter(self) -> "Checkpoint":
        """The model of its own files alone."""
        return self if self.adapter is None else replace(self, adapter=None)

    @property
    def parts(self) -> tuple["Checkpoint", ...]:
        """What it was put together from: the model without its adapter, and the adapter, if it has one."""
        return (self,) if self.adapter is None else (self.without_adapter, self.adapter)

    @property
    def folder(self) -> Path:
        """The folder on this machine; ValueError if the files are elsewhere."""
        return local_path(self.uri)

    @property
    def size(self) -> int:
        """Bytes of all files, also of the adapter."""
        return sum(file.size for file in self.files.values()) + (self.adapter.size if self.adapter else 0)


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Rows of example or evaluation data, known by content. The rows themselves stay in the file."""

    uri: str
    """`file:///...` of the JSON Lines file or, for retrieval, of the BEIR folder."""
    sha256: str
    """Of the rows' content: equal rows in equal order give an equal digest."""
    n: int
    """Number of rows (of queries for retrieval); 0 where only a program knows."""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Score:
    """How well one candidate does on the example data before any merging."""

    candidate: str
    losses: tuple[float, ...]
    """One loss per example, in nats, in the order of the examples; with `loss: lm_cocktail` one per batch of them."""
    n_tokens: int
    """Tokens the losses were taken over (of encoders: texts embedded; of rerankers: pairs read)."""
    seconds: float
    """Of the computation; what the cache answered keeps the figure of the first time."""
    cached: bool = False
    warnings: tuple[str, ...] = ()
    """What a reader of the losses should know, such as texts that were cut; kept with them in the cache."""
    unit: str = "example"
    """What each loss belongs to: `example`, or `batch` with `loss: lm_cocktail`."""
    schema_version: int = SCHEMA_VERSION

    @property
    def loss(self) -> float:
        """Mean over examples."""
        return fmean(self.losses)

    @property
    def loss_stderr(self) -> float:
        """Standard error of `loss`; 0 for a single example."""
        return standard_error(self.losses)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on one evaluation task, example by example."""

    task: str
    model: str
    """Name of the checkpoint: `merged`, `champion`, `base` or a candidate's name."""
    metric: str
    higher_is_better: bool
    values: tuple[float, ...]
    """One value per example, in the order of the data; `aggregate` says how they become the metric."""
    data_sha256: str
    seconds: float
    cached: bool = False
    conditions: str = ""
    """What else decides the values, such as precision and length; equal for values that may be compared."""
    aggregate: Aggregate = "mean"
    labels: tuple[float, ...] | None = None
    """What belongs to each example where the metric needs it: its class, or the value that people gave it."""
    schema_version: int = SCHEMA_VERSION

    @property
    def value(self) -> float:
        """The metric over all examples."""
        return aggregate(self.values, self.aggregate, self.labels)

    @property
    def stderr(self) -> float:
        """Standard error of `value`; see `tasks.aggregates.standard_error`."""
        return standard_error(self.values, self.aggregate, self.labels)


@dataclass(frozen=True, slots=True)
class SanityCheck:
    """Something that any usable model can do, tried on the merged one before anything is measured."""

    name: str
    passed: bool
    sentence: str
    """What was tried and what came out."""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's answer; "no" is a result, not an exception."""

    passed: bool
    reasons: tuple[str, ...]
    """One sentence with numbers per rule, those that failed first."""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Release:
    """A version in the registry, as `refresh` left it."""

    version: str
    """`<YYYYMMDD>-<first 12 hex of the model fingerprint>`."""
    sequence: int
    uris: tuple[str, ...]
    """The version's folder in every destination, the truth first."""
    manifest_sha256: str
    promoted: bool
    """Whether the alias points at it now."""
    schema_version: int = SCHEMA_VERSION


def to_json(record: object) -> dict[str, Any]:
    """A record as plain JSON values; NaN and infinity stay floats for the writer to refuse."""
    # By the values: an adapter would first build the schema of the record, which takes longer than all else here.
    return to_jsonable_python(record)


def from_json(kind: type[Record], data: Mapping[str, Any]) -> Record:
    """The record that `to_json` wrote; pydantic's ValidationError if it is not one."""
    return _adapter(kind).validate_python(dict(data))


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
