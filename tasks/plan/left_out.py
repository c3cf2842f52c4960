"""Does a recipe still hold without its optional candidates that cannot take part?"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tasks.arithmetic.catalogue import find_method
from tasks.layered import Setting
from tasks.recipe import Recipe
from tasks.shares import scale_shares


def remaining_problems(recipe: Recipe, left_out: Mapping[str, str]) -> list[str]:
    """Say what no longer holds in the recipe without the candidates that were left out."""
    if not left_out:
        return []
    remaining: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    remaining["candidates"] = [entry for entry in remaining["candidates"] if entry["name"] not in left_out]
    weights: dict[str, Setting] | None = remaining["weigh"]["weights"]
    if weights is not None:
        kept = {name: weight for name, weight in weights.items() if name not in left_out}
        are_shares = find_method(recipe.merge.method).weights == "sum to 1"
        # Shares are scaled, as they will be when they are weighed; what cannot be scaled is refused as it stands.
        remaining["weigh"]["weights"] = (scale_shares(kept, list(kept)) if are_shares else None) or kept
    try:
        Recipe.model_validate(remaining)
    except ValidationError as error:
        lost = "; ".join(left_out.values())
        reasons = "; ".join(details["msg"].removeprefix("Value error, ") for details in error.errors())
        return [f"without the optional {', '.join(left_out)} the recipe no longer holds: {reasons} (left out: {lost})"]
    return []
