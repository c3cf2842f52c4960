"""Weights and parameters that differ from tensor to tensor, held against the tensors that the base really has."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tasks.arithmetic.catalogue import find_method
from tasks.depth import Place, locate
from tasks.layered import Setting, entries_of, is_catch_all, is_layered, resolve
from tasks.recipe import Recipe
from tasks.shares import WEIGHT_SUM_TOLERANCE
from tasks.tensors import FLOAT_DTYPES, TensorView

EMBEDDINGS, HEAD = "embeddings", "head"
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the way through the layers."""


def layered_settings(recipe: Recipe) -> dict[str, Setting]:
    """What the recipe sets by depth or by tensor name: what it is, in words, to how it is set."""
    settings: dict[str, Setting] = {
        f"weight of {name}": weight for name, weight in (recipe.weigh.weights or {}).items()
    }
    settings |= recipe.merge.parameters
    for candidate in recipe.candidates:
        settings |= {f"{name} of {candidate.name}": own for name, own in (candidate.parameters or {}).items()}
    return {label: setting for label, setting in settings.items() if is_layered(setting)}


def tabulate_layered(recipe: Recipe, views: Mapping[str, TensorView]) -> dict[str, dict[str, float]]:
    """What layered settings come to, in some places of the model.

    Args:
        recipe: With or without such settings.
        views: Tensors of the base.

    Returns:
        What was set, by filter if it has some, to place (embeddings, some of the layers, head) to number. Places where
        a filter fits no tensor are left out.
    """
    settings = layered_settings(recipe)
    places = locate_floating(views) if settings else {}
    bands = _bands(places)
    return {
        label if len(entries_of(setting)) == 1 else f"{label} ({entry.get('filter') or 'other tensors'})": {
            band: float(resolve(setting, names[0], places[names[0]].depth))
            for band, all_names in bands.items()
            if (names := [name for name in all_names if _entry_of(setting, name) == index])
        }
        for label, setting in settings.items()
        for index, entry in enumerate(entries_of(setting))
    }


def layered_problems(recipe: Recipe, views: Mapping[str, TensorView]) -> list[str]:
    """Say which filters fit no tensor of the base, and where shares of a linear merge do not sum to 1."""
    settings = layered_settings(recipe)
    places = locate_floating(views) if settings else {}
    problems = [
        f"{label}: filter {entry.get('filter')!r} decides no tensor of the base; names are such as {_example(places)}"
        for label, setting in settings.items()
        for index, entry in enumerate(entries_of(setting))
        if not is_catch_all(entry) and all(_entry_of(setting, name) != index for name in places)
    ]
    return problems + _sum_problems(recipe, places)


def locate_floating(views: Mapping[str, TensorView]) -> dict[str, Place]:
    """Where the tensors are that are merged; integers are copied from the base."""
    return locate(name for name, view in views.items() if view.dtype in FLOAT_DTYPES)


def _entry_of(setting: Setting, name: str) -> int:
    """Which entry decides a tensor."""
    entries = entries_of(setting)
    return next(i for i, entry in enumerate(entries) if is_catch_all(entry) or str(entry.get("filter")) in name)


def _example(places: Mapping[str, Place]) -> str:
    """The name of a tensor in a layer, else of any tensor."""
    return next((name for name, place in places.items() if place.layer is not None), next(iter(places), "none"))


def _sum_problems(recipe: Recipe, places: Mapping[str, Place]) -> list[str]:
    weights = recipe.weigh.weights or {}
    if find_method(recipe.merge.method).weights != "sum to 1" or not any(map(is_layered, weights.values())):
        return []
    sums = {
        name: sum(resolve(weight, name, place.depth) for weight in weights.values()) for name, place in places.items()
    }
    wrong = [(name, total) for name, total in sums.items() if abs(total - 1) > WEIGHT_SUM_TOLERANCE]
    if not wrong:
        return []
    name, total = wrong[0]
    return [
        f"weigh.weights: a linear merge needs weights that sum to 1; of {len(wrong)} tensors they do not, such as "
        f"{name!r} with {total:.6g}"
    ]


def _bands(places: Mapping[str, Place]) -> dict[str, Sequence[str]]:
    """Place in the model to the names of the tensors there; of several stacks the longest names the layers."""
    layers = {(place.stack, place.layer) for place in places.values()}
    sizes = Counter(stack for stack, _ in layers if stack is not None)
    outside = [name for name, place in places.items() if place.stack is None]
    bands: dict[str, Sequence[str]] = {EMBEDDINGS: [name for name in outside if places[name].depth == 0]}
    stacks = sorted(sizes, key=lambda stack: (-sizes[stack], stack))
    for way in SHOWN if stacks else ():
        # Longer stacks first: where one setting counts in several, theirs is shown.
        chosen = [(stack, round(way * (sizes[stack] - 1))) for stack in stacks]
        bands.setdefault(f"layer {chosen[0][1]}", list(_names_in(places, chosen)))
    bands[HEAD] = [name for name in outside if places[name].depth == 1]
    return {band: names for band, names in bands.items() if names}


def _names_in(places: Mapping[str, Place], layers: Sequence[tuple[str, int]]) -> Iterator[str]:
    for layer in layers:
        yield from (name for name, place in places.items() if (place.stack, place.layer) == layer)
