"""Parameters of merge methods in a recipe: what a method has, where it stands, and what is wrong with it."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence

from tasks.arithmetic.catalogue import METHOD_NAMES, find_method
from tasks.arithmetic.method import Method, Parameter
from tasks.layered import Setting, entries_of, numbers_in
from tasks.settings import CandidateSettings, MergeSettings


def merge_parameters(merge: MergeSettings) -> dict[str, Setting]:
    """All parameters of the merge as a whole, by name, those that the recipe leaves out at their default."""
    known = find_method(merge.method).parameters_of("merge")
    return {name: merge.parameters.get(name, parameter.default) for name, parameter in known.items()}


def candidate_parameters(
    merge: MergeSettings, candidates: Sequence[CandidateSettings]
) -> dict[str, dict[str, Setting]]:
    """Candidate name to all of its parameters: its own, else those of the merge for all, else defaults."""
    known = find_method(merge.method).parameters_of("candidate")
    for_all = {name: merge.parameters.get(name, parameter.default) for name, parameter in known.items()}
    return {
        candidate.name: for_all | {name: own for name, own in (candidate.parameters or {}).items() if name in known}
        for candidate in candidates
    }


def parameter_problems(merge: MergeSettings, candidates: Sequence[CandidateSettings]) -> Iterator[str]:
    """Say which parameters the method does not have, which stand in the wrong place, and which values cannot be."""
    method = find_method(merge.method)
    yield from _problems(method, "merge.parameters.", merge.parameters)
    for candidate in candidates:
        place = f"candidate {candidate.name!r}: parameters."
        own = candidate.parameters or {}
        whole = method.parameters_of("merge")
        for name in (name for name in own if name in whole):
            yield f"{place}{name}: it belongs to the whole merge; write it under merge.parameters"
        yield from _problems(method, place, {name: setting for name, setting in own.items() if name not in whole})


def _problems(method: Method, place: str, settings: Mapping[str, Setting]) -> Iterator[str]:
    known = {parameter.name: parameter for parameter in method.parameters}
    for name, setting in settings.items():
        if name in known:
            yield from (f"{place}{name}: {problem}" for problem in _value_problems(known[name], setting))
        # Lock files of the first version say lambda: 1.0 of every method.
        elif (name, setting) != ("lambda", 1.0):
            yield f"{place}{name}: {_unknown(method, name)}"


def _unknown(method: Method, name: str) -> str:
    own = sorted(parameter.name for parameter in method.parameters)
    has = f"{method.name} has {', '.join(own) or 'no parameters'}"
    if name == "weight":
        return "weights stand under weigh.weights, with strategy: given"
    others = {other: [parameter.name for parameter in find_method(other).parameters] for other in METHOD_NAMES}
    if owners := [other for other, parameters in others.items() if name in parameters]:
        return f"{name} belongs to method {', '.join(owners)}; {has}"
    every = sorted({parameter for parameters in others.values() for parameter in parameters})
    nearest = difflib.get_close_matches(name, own, n=1) or difflib.get_close_matches(name, every, n=1)
    return f"unknown key {name!r}; " + (f"did you mean {nearest[0]!r}? " if nearest else "") + has


def _value_problems(parameter: Parameter, setting: Setting) -> Iterator[str]:
    if isinstance(parameter.default, bool):
        wrong = [number for number in numbers_in(setting) if not isinstance(number, bool)]
        if any(isinstance(entry["value"], list) for entry in entries_of(setting)):
            yield "expected true or false, found a gradient; it is either on or off, by tensor name if need be"
        elif wrong:
            yield f"expected true or false, found {', '.join(map(str, wrong))}"
        return
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    wrong = [number for number in numbers_in(setting) if isinstance(number, bool) or not low <= number <= high]
    if wrong:
        yield f"expected a number{_limits(parameter)}, found {', '.join(map(str, wrong))}"


def _limits(parameter: Parameter) -> str:
    if parameter.low is None:
        return "" if parameter.high is None else f" up to {parameter.high:g}"
    return f" from {parameter.low:g}" + ("" if parameter.high is None else f" to {parameter.high:g}")
