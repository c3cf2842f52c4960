"""A merge that the nodes of a cluster share: models stay where they are, each node merges some of the output's files.

    merge.split: true          with runner: ray

The files gather under the cache: on S3, where machines share it there, else in its folder, which all nodes must see.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import unmapped

from flows.run import clear_work, general_model, settings_of, work_folder
from flows.runners import runner_of
from tasks.cache import open_cache
from tasks.download.task import download
from tasks.merge.shards import MergeRequest
from tasks.merge.task import finish_split_merge, merge_one_shard, outline_split_merge
from tasks.merge_records import MergedModel
from tasks.night_records import Plan
from tasks.parameters import candidate_parameters, merge_parameters
from tasks.recipe import Recipe
from tasks.records import Checkpoint
from tasks.settings import CacheSettings
from tasks.stores.shards import sweep_places, working_in
from tasks.values import parse_size
from tasks.weight_records import MergeWeights


def bring_models(recipe: Recipe, models: Sequence[Checkpoint], cache: CacheSettings) -> Sequence[Any]:
    """Begin to bring models to this machine, unless the nodes of a cluster read them where they are.

    Returns:
        In the order of `models`, a future of each, or the model as planned. What waits for a future need not wait for
        the others: a candidate is scored as soon as it is here, while the next one comes.
    """
    return list(models) if recipe.merge.split else download.map(models, unmapped(cache))


@contextmanager
def merge_place(recipe: Recipe, planned: Plan, cache: CacheSettings) -> Generator[str]:
    """Where the merged model is made; removed at the end, unless with an error after which another try may succeed.

    A path that need not exist yet; of a merge that nodes share a URI that they can write under.
    """
    if not (recipe.merge.split and cache.shared):
        with work_folder(open_cache(cache), planned) as work:
            goal = work / "merged"
            if recipe.merge.split:
                goal.mkdir(exist_ok=True)
            yield goal.as_uri() if recipe.merge.split else str(goal)
        return
    places = _places(cache.shared)
    sweep_places(places)
    place = f"{places}/{planned.model_fingerprint}"
    with working_in(place):
        yield place


def clear_place(recipe: Recipe, planned: Plan, cache: CacheSettings) -> None:
    """Remove what a run that was killed at its very end has left: its model is decided, and needs no merging."""
    clear_work(open_cache(cache), planned)
    if recipe.merge.split and cache.shared:
        with working_in(f"{_places(cache.shared)}/{planned.model_fingerprint}"):
            pass


def merge_split(
    recipe: Recipe,
    planned: Plan,
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    weights: MergeWeights,
    place: str,
    cache: CacheSettings,
) -> MergedModel:
    """Merge each file of the output on a node of the cluster; the last to be stored are those without tensors.

    Args:
        recipe: Says how.
        planned: Says where models are.
        base: As planned.
        candidates: Those that take part, as planned.
        weights: Of every candidate.
        place: URI that the files are stored under.
        cache: Knows what earlier runs have merged.
    """
    chosen = settings_of(recipe, candidates)
    request = MergeRequest(
        base=base,
        candidates=tuple(candidates),
        weights=weights.settings,
        method=recipe.merge.method,
        parameters=merge_parameters(recipe.merge),
        candidate_parameters=candidate_parameters(recipe.merge, chosen),
        general=general_model(recipe),
        seed=recipe.merge.seed,
        dtype=recipe.merge.dtype,
        max_shard_bytes=parse_size(recipe.merge.max_shard_size),
        embeddings=recipe.merge.embeddings,
        has_base=recipe.base is not None,
    )
    paths = outline_split_merge(request, cache)
    with runner_of(recipe, planned):
        shards = merge_one_shard.map(unmapped(request), paths, unmapped(place), unmapped(cache)).result()
    return finish_split_merge(request, dict(zip(paths, shards, strict=True)), place, cache)


def _places(shared: str) -> str:
    return f"{shared.rstrip('/')}/merged"
