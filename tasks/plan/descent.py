"""The distance of every candidate from the base, from a few megabytes of each; measured once per pair of models."""

from collections.abc import Mapping, Sequence

from tasks.cache import ResultCache
from tasks.errors import CocktailError
from tasks.messages import list_some
from tasks.plan.ancestry import (
    FAR_DISTANCE,
    UNRELATED_DISTANCE,
    Ancestry,
    block_ranges,
    choose_sample,
    comparable_views,
    compare_with_base,
    read_blocks,
)
from tasks.plan.compatibility import ModelHeaders
from tasks.plan.findings import Findings
from tasks.sources.sketch import FileRange
from tasks.tensors import TensorView

MEASURE_VERSION = 1
"""Raised by hand when the sample or the measure changes (`tasks.plan.ancestry`)."""

_KIND = "ancestry"


def measure_descent(
    base: ModelHeaders, models: Sequence[ModelHeaders], cache: ResultCache
) -> dict[str, Ancestry | CocktailError]:
    """Compare models with the base; of models that are elsewhere, the sample is fetched.

    Args:
        base: What they are compared with.
        models: Candidates; the base may be among them.
        cache: Answers for pairs that were compared before.

    Returns:
        The digest of every model, the base's among them, to what its sample says, or why it could not be read. Of a
        model with an adapter only the model under it is compared, and the digest is that model's.
    """
    distinct = {model.checkpoint.without_adapter.digest: model for model in (*models, base)}
    found: dict[str, Ancestry | CocktailError] = {
        digest: known for digest in distinct if (known := _recall(base, digest, cache)) is not None
    }
    missing = {digest: model for digest, model in distinct.items() if digest not in found}
    if not missing:
        return found
    sample = choose_sample(base.views)
    try:
        _fill(base, sample)
        base_blocks = {view.name: read_blocks(view) for view in sample}
    except CocktailError as error:
        return {**found, **dict.fromkeys(missing, error)}
    for digest, model in missing.items():
        try:
            _fill(model, comparable_views(sample, model.views))
        except CocktailError as error:
            found[digest] = error
            continue
        ancestry = compare_with_base(sample, base_blocks, model.views)
        _remember(base, digest, ancestry, cache)
        found[digest] = ancestry
    return found


def judge_ancestry(ancestry: Ancestry, label: str, allow_unrelated: bool) -> Findings:
    """Say what a sample means: NaN and strangers are problems, distant relatives a warning."""
    found = Findings()
    if ancestry.non_finite:
        names = list_some([repr(name) for name in ancestry.non_finite])
        found.problems.append(f"{label}: tensor {names} holds NaN or infinity; the model is broken")
    if ancestry.distance is None:
        found.warnings.append(f"{label}: there was no matrix to compare with the base, so its descent is unknown")
    elif ancestry.distance > UNRELATED_DISTANCE:
        sentence = (
            f"{label}: it does not descend from the base: distance {ancestry.distance:.2f}, where fine-tunes have 0.01 "
            f"to 0.4 and strangers 1.41 (limit {UNRELATED_DISTANCE})"
        )
        if allow_unrelated:
            found.warnings.append(f"{sentence}; merged all the same, as allow_unrelated says")
        else:
            found.problems.append(f"{sentence}; merge only fine-tunes of one base, or set allow_unrelated: true")
    elif ancestry.distance > FAR_DISTANCE:
        found.warnings.append(
            f"{label}: it is far from the base: distance {ancestry.distance:.2f}, where fine-tunes have 0.01 to 0.4; "
            "look closely at what the merge can still do"
        )
    return found


def _fill(model: ModelHeaders, views: Sequence[TensorView]) -> None:
    """Make sure that the sampled numbers of these tensors are on this machine."""
    if model.sketch is None:
        return
    model.sketch.fill(
        FileRange(view.file.relative_to(model.folder).as_posix(), start, length)
        for view in views
        for start, length in block_ranges(view)
    )


def _recall(base: ModelHeaders, digest: str, cache: ResultCache) -> Ancestry | None:
    known = cache.get(_KIND, _key(base, digest))
    return None if known is None else Ancestry(known["distance"], tuple(known["non_finite"]))


def _remember(base: ModelHeaders, digest: str, ancestry: Ancestry, cache: ResultCache) -> None:
    cache.put(_KIND, _key(base, digest), {"distance": ancestry.distance, "non_finite": list(ancestry.non_finite)})


def _key(base: ModelHeaders, digest: str) -> Mapping[str, object]:
    return {"base": base.checkpoint.digest, "candidate": digest, "version": MEASURE_VERSION}
