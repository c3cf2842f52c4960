"""What weights and parameters that differ from tensor to tensor come to, as a table."""

from collections.abc import Mapping

from rich.table import Table


def layered_table(layered: Mapping[str, Mapping[str, float]]) -> Table:
    """One row per setting, one column per place in the model.

    Args:
        layered: As the plan has it: setting to place to number. Where a filter fits no tensor the cell stays empty.
    """
    table = Table(title="By depth and by name of the tensor", title_justify="left", caption_justify="left")
    table.add_column("setting", overflow="fold")
    places = sorted({place for numbers in layered.values() for place in numbers}, key=_from_front_to_back)
    for place in places:
        table.add_column(place, justify="right", overflow="fold")
    for setting, numbers in layered.items():
        table.add_row(setting, *(f"{numbers[place]:.4g}" if place in numbers else "" for place in places))
    return table


def _from_front_to_back(place: str) -> tuple[int, int]:
    """Orders embeddings, layers by their number, head."""
    word, _, number = place.partition(" ")
    return ("embeddings", "layer", "head").index(word), int(number or 0)
