"""Settings that may differ from tensor to tensor: a number, numbers over the depth of the model, or by tensor name.

Forms and meaning are mergekit's:

- a number, or true or false: the same for every tensor;
- a list of numbers: a gradient. They stand at equal distances from the first layer to the last, and a tensor takes
  what lies at its depth on the straight lines between them;
- a list of `{filter, value}`: the first entry whose filter is a part of the tensor's name has the value, a number or a
  gradient. An entry without a filter, or with "*", fits every tensor; exactly the last one must be such. (mergekit
  goes on to the next wider place, and at last to a default, where no entry fits; that hides misspelt filters.)

Of several places the narrowest counts, as in mergekit: what stands with a candidate, then what stands with the merge,
then the method's default.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NotRequired, TypeAlias, TypeGuard, cast

# pydantic asks for this one where Python is older than 3.12.
from typing_extensions import TypedDict

Number: TypeAlias = bool | float


class FilteredValue(TypedDict):
    """The value of the tensors that a filter fits."""

    filter: NotRequired[str | None]
    value: Number | list[float]


Setting: TypeAlias = Number | list[float] | list[FilteredValue]

_FORMS = "a number, a list of numbers (a gradient over the depth of the model) or a list of {filter, value}"


def read_setting(value: object) -> Setting:
    """A setting as YAML or JSON gives it, with whole numbers as floats, so that 1 and 1.0 are one.

    Raises:
        ValueError: it has none of the three forms, or a number is not finite; the message says what was found.
    """
    items = _items_of(value)
    if not items:
        return _read_number(value, _FORMS)
    return _read_entries(items) if isinstance(items[0], Mapping) else _read_gradient(items, _FORMS)


def read_weight(value: object) -> Setting:
    """A setting that is a weight: no number of it is true or false.

    Raises:
        ValueError: see `read_setting`.
    """
    setting = read_setting(value)
    if any(isinstance(number, bool) for number in numbers_in(setting)):
        raise ValueError(f"expected {_FORMS}; found {value!r}")
    return setting


def is_layered(setting: Setting) -> bool:
    """Whether it can differ from tensor to tensor."""
    return isinstance(setting, list)


def resolve(setting: Setting, tensor_name: str, depth: float) -> Number:
    """The number of one tensor.

    Args:
        setting: As `read_setting` returns it.
        tensor_name: What filters look for their text in.
        depth: From 0 (first layer) to 1 (last layer); see `tasks.depth`.

    Raises:
        ValueError: no entry fits, which a setting that was read has ruled out.
    """
    if not isinstance(setting, list):
        return setting
    if not _is_filtered(setting):
        return _interpolate(cast(list[float], setting), depth)
    for entry in setting:
        if is_catch_all(entry) or str(entry.get("filter")) in tensor_name:
            return resolve(entry["value"], tensor_name, depth)
    raise ValueError(f"no filter of {setting!r} fits tensor {tensor_name!r}; end the list with an entry without filter")


def is_catch_all(entry: FilteredValue) -> bool:
    """Whether an entry fits every tensor."""
    return entry.get("filter") in (None, "", "*")


def entries_of(setting: Setting) -> list[FilteredValue]:
    """The setting as a list of `{filter, value}`, whatever its form."""
    if isinstance(setting, list) and _is_filtered(setting):
        return setting
    return [{"value": cast("Number | list[float]", setting)}]


def numbers_in(setting: Setting) -> Iterator[Number]:
    """Every number that was written; what lies between them on a gradient is within their range."""
    for entry in entries_of(setting):
        value = entry["value"]
        yield from value if isinstance(value, list) else [value]


def map_numbers(setting: Setting, function: Callable[[float], float]) -> Setting:
    """The setting with every number changed. With a linear function all that it resolves to is changed alike."""
    if not isinstance(setting, list):
        return function(setting)
    if not _is_filtered(setting):
        return [function(number) for number in cast(list[float], setting)]
    return [{**entry, "value": cast("float | list[float]", map_numbers(entry["value"], function))} for entry in setting]


def mean_over_depth(setting: Setting) -> float:
    """One number to stand for the setting where there is room for one only: the mean over the depth of the model.

    Of filters the last entry counts, which all tensors take that no other entry fits; so the means of shares that sum
    to 1 sum to 1.
    """
    value = entries_of(setting)[-1]["value"]
    if not isinstance(value, list):
        return float(value)
    if len(value) == 1:
        return value[0]
    # The area under straight lines: the two ends count half.
    return math.fsum([value[0] / 2, *value[1:-1], value[-1] / 2]) / (len(value) - 1)


def distinct_places(settings: Iterable[Setting]) -> list[tuple[str, float]]:
    """Tensor names and depths that tell much of sums of these settings before the tensors' names are known.

    Between the points of all gradients sums run straight, so they need be looked at in those points only: there once
    for a tensor that no filter fits (the empty name), and once for a tensor named like each filter that all settings
    with filters share. What tensors with other filters come to, only their names can tell.
    """
    settings = list(settings)
    values = [entry for setting in settings for entry in entries_of(setting)]
    filters = [
        [str(entry.get("filter")) for entry in entries_of(setting) if not is_catch_all(entry)] for setting in settings
    ]
    used = [texts for texts in filters if texts]
    names = ["", *(text for text in dict.fromkeys(used[0] if used else []) if all(text in texts for texts in used))]
    lengths = {len(entry["value"]) for entry in values if isinstance(entry["value"], list)}
    depths = sorted({0.0} | {step / (length - 1) for length in lengths if length > 1 for step in range(length)})
    return [(name, depth) for name in names for depth in depths]


def _interpolate(gradient: list[float], depth: float) -> float:
    position = depth * (len(gradient) - 1)
    below = min(int(position), len(gradient) - 1)
    above = min(below + 1, len(gradient) - 1)
    fraction = position - below
    return (1 - fraction) * gradient[below] + fraction * gradient[above]


def _read_entries(items: list[object]) -> list[FilteredValue]:
    entries = [_read_entry(item) for item in items]
    *others, last = entries
    if not is_catch_all(last):
        raise ValueError(
            f"no value for tensors that none of the filters fits; end the list with an entry without filter, found "
            f"filter {last.get('filter')!r} there"
        )
    if any(is_catch_all(entry) for entry in others):
        raise ValueError("entries after one without filter are never reached; let it be the last")
    return entries


def _read_entry(item: object) -> FilteredValue:
    expected = "a list of {filter, value}, each value a number or a list of numbers"
    if not isinstance(item, Mapping):
        raise ValueError(f"expected {expected}; found {item!r} in it")
    entry = cast(Mapping[str, object], item)
    text = entry.get("filter")
    if set(entry) - {"filter", "value"} or "value" not in entry:
        found = ", ".join(map(str, entry)) or "none"
        raise ValueError(f"expected {expected}; found an entry with the keys {found}")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"expected a part of tensor names as filter, found {text!r}")
    items = _items_of(entry["value"])
    read = _read_gradient(items, expected) if items else _read_number(entry["value"], expected)
    return {"value": read} if text is None else {"filter": text, "value": read}


def _read_gradient(items: list[object], expected: str) -> list[float]:
    if any(isinstance(item, bool) for item in items):
        raise ValueError(f"expected {expected}; found {items!r}")
    return [_read_number(item, expected) for item in items]


def _read_number(value: object, expected: str) -> Number:
    if isinstance(value, bool):
        return value
    try:
        # YAML takes 1e-3 for text.
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected {expected}; found {value!r}")
    return number


def _items_of(value: object) -> list[object] | None:
    return cast(list[object], value) if isinstance(value, list) else None


def _is_filtered(setting: list[float] | list[FilteredValue]) -> TypeGuard[list[FilteredValue]]:
    return isinstance(setting[0], dict)
