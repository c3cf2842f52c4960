"""One settings file per environment over one recipe: dev.yaml, staging.yaml and prod.yaml hold only what differs.

Sections are merged key by key. A list takes the place of the recipe's, but candidates and evaluation tasks have names:
one with a name that is there changes that one, another joins the end. A path in a settings file is relative to that
file, so the same file means the same over any recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tasks.errors import RecipeError
from tasks.recipe import Recipe
from tasks.values import Argument, ReferenceText

_LONGEST_SHOWN = 60
_NAMED_LISTS = ("candidates", "evaluate")
_PATH_TYPES: tuple[Any, ...] = (ReferenceText, Argument)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML would silently take the last."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._looked_at: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Once: what `<<` merges into a section joins its keys here, those that the section has of its own too.
        if node not in self._looked_at:
            self._looked_at.add(node)
            _check_keys(node)
        super().flatten_mapping(node)


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[Any] = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        if key.value in seen:
            problem = f"the key {key.value!r} is written twice in one section"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)


@dataclass(frozen=True, slots=True)
class Layered:
    """The content of a recipe's file with settings files over it."""

    content: dict[str, Any]
    """What is to be validated as a `Recipe`."""
    origins: dict[str, str] = field(default_factory=dict[str, str])
    """Place of a value (`weigh.alpha`, `candidates.1.model`) to what brought it: a settings file, or an option."""

    def origin(self, place: str) -> str | None:
        """What brought the value at a place, the section around it or, last, something in it; None: the recipe."""
        parts = place.split(".")
        places = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        inside = [each for each in self.origins if each.startswith(f"{place}.")]
        return next((self.origins[each] for each in (*places, *reversed(inside)) if each in self.origins), None)


def read_yaml(path: Path, missing: str) -> dict[str, Any]:
    """The keys in a YAML file.

    Args:
        path: A recipe or a settings file.
        missing: What to say if there is no such file.

    Raises:
        RecipeError: it cannot be read, is no YAML, or holds no keys.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: {missing}") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: this is a folder; name a file") from error
    except OSError as error:
        raise RecipeError(f"{path}: it cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: this is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys such as name, candidates and merge, found {found_words(content)}")
    return cast(dict[str, Any], content)


def lay_over(content: dict[str, Any], files: Sequence[Path]) -> Layered:
    """Lay settings files over a recipe's content, one after the other.

    Args:
        content: The keys of the recipe's file; changed in place.
        files: Settings files; a later one wins.

    Raises:
        RecipeError: a file cannot be read, or a candidate or evaluation task in it has no name.
    """
    layered = Layered(content)
    for file in files:
        settings = read_yaml(file, "no such settings file; --with takes a YAML file with the keys that differ")
        _check_names(settings, file)
        placed = _with_absolute_paths(Recipe, settings, file.resolve().parent)
        _merge(content, placed, "", file, layered.origins)
    return layered


def found_words(value: Any) -> str:
    """What somebody wrote, short."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a section with keys"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `list[EvaluationTask]` or `PublishSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := section_in(argument))), None)


def _check_names(settings: Mapping[str, Any], file: Path) -> None:
    problems = [
        f"  - {key}.{number}: an entry needs its name, which says what it changes or adds"
        for key in _NAMED_LISTS
        for number, entry in enumerate(_entries(settings.get(key)))
        if not isinstance(_name_in(entry), str)
    ]
    if problems:
        raise RecipeError("\n".join([f"{file}: the settings cannot be laid over a recipe:", *problems]))


def _name_in(entry: Any) -> Any:
    return cast(dict[str, Any], entry).get("name") if isinstance(entry, dict) else None


def _entries(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def _merge(under: dict[str, Any], over: dict[str, Any], place: str, file: Path, origins: dict[str, str]) -> None:
    """Merge a section of a settings file into the recipe's, noting where each value comes from."""
    for key, value in over.items():
        here, there = f"{place}{key}", under.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            _merge(cast(dict[str, Any], there), cast(dict[str, Any], value), f"{here}.", file, origins)
        elif not place and key in _NAMED_LISTS and isinstance(value, list) and isinstance(there, list):
            _merge_named(cast(list[Any], there), cast(list[Any], value), f"{here}.", file, origins)
        else:
            under[key], origins[here] = value, str(file)


def _merge_named(under: list[Any], over: list[Any], place: str, file: Path, origins: dict[str, str]) -> None:
    names = [_name_in(entry) for entry in under]
    # What is no text is no name, and is told of with the recipe's other problems.
    numbers = {name: number for number, name in enumerate(names) if isinstance(name, str)}
    for entry in over:
        number = numbers.setdefault(entry["name"], len(under))
        if number < len(under):
            _merge(under[number], entry, f"{place}{number}.", file, origins)
        else:
            under.append(entry)
            origins[f"{place}{number}"] = str(file)


def _with_absolute_paths(section: type[BaseModel], content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a section, with references resolved against the folder of its file."""
    fields = {info.alias or name: info for name, info in section.model_fields.items()}
    return {key: _placed(fields[key], value, folder) if key in fields else value for key, value in content.items()}


def _placed(info: FieldInfo, value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_placed(info, item, folder) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        inner = section_in(info.annotation)
        return _with_absolute_paths(inner, cast(dict[str, Any], value), folder) if inner else value
    kind = next((kind for kind in _PATH_TYPES if _holds(info, kind)), None)
    if kind is None or not isinstance(value, str):
        return value
    try:
        return TypeAdapter[Any](kind).validate_python(value, context={"folder": folder})
    except ValidationError:
        return value  # No reference: the recipe's own check says so, with its key.


def _holds(info: FieldInfo, kind: Any) -> bool:
    """Whether texts of a field are references: pydantic keeps what was annotated on the field or inside its type."""
    return any(mark in info.metadata for mark in kind.__metadata__) or _inside(info.annotation, kind)


def _inside(annotation: Any, kind: Any) -> bool:
    return annotation == kind or any(_inside(argument, kind) for argument in get_args(annotation))
