"""What a merge method is told: names and numbers as a recipe gives them, checked, and resolved for every tensor."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.arithmetic.catalogue import find_method
from tasks.arithmetic.method import Formula, Method, Number, Parameter, TensorInputs
from tasks.layered import Setting, resolve
from tasks.tensors import TensorView


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, and all that was chosen for it."""

    method: Method
    candidates: tuple[str, ...]
    """Names, in the order of the merge."""
    weights: Mapping[str, Setting]
    """Of every candidate."""
    parameters: Mapping[str, Setting]
    """Those that are not at their default."""
    candidate_parameters: Mapping[str, Mapping[str, Setting]]
    """The same for parameters of a candidate, by its name."""
    general: str | None
    seed: int
    has_base: bool = True
    """Whether there is a base that formulas may read."""

    @property
    def reads_base(self) -> bool:
        """Whether formulas get the base's tensors."""
        return self.has_base and self.method.reads_base(len(self.candidates))


def choose(
    method: str,
    candidates: Sequence[str],
    weights: Mapping[str, Setting],
    parameters: Mapping[str, Setting],
    candidate_parameters: Mapping[str, Mapping[str, Setting]],
    general: str | None,
    seed: int,
    has_base: bool = True,
) -> Choice:
    """Find the method and check that it can be used as asked.

    Args:
        method: Its name.
        candidates: Names of what is merged.
        weights: One for every candidate; may be empty for a method that uses none.
        parameters: Of the merge, by name.
        candidate_parameters: Candidate name to its own parameters, by name.
        general: The candidate that skills are added to; means nothing to a method that does not read the base.
        seed: For methods that draw random numbers.
        has_base: False: no base was named, and what takes its place gives names, shapes and integers only.

    Raises:
        ValueError: method, names or numbers make no sense, or the method needs a base.
    """
    found = find_method(method)
    if found.weights == "unused" and not weights:
        weights = dict.fromkeys(candidates, 1.0)
    _check_weights(candidates, weights)
    _check_count(found, candidates)
    if not has_base:
        _check_needs_no_base(found, len(candidates))
    _check_parameters(found, candidates, parameters, candidate_parameters)
    if found.base == "unused":
        general = None
    if general is not None and general not in candidates:
        raise ValueError(f"general: there is no candidate {general!r}; candidates are {', '.join(candidates)}")
    return Choice(found, tuple(candidates), weights, parameters, candidate_parameters, general, seed, has_base)


def leave_out_zeros(choice: Choice, depths: Mapping[str, float]) -> Choice:
    """Without candidates that count for nothing in any tensor, so that they are not read.

    Args:
        choice: With all candidates.
        depths: Floating tensors to their depth.

    Raises:
        ValueError: all weights are 0 in a method that has nothing else to give.
    """
    if not choice.method.skips_zero:
        return choice
    counted = tuple(
        name
        for name in choice.candidates
        if name == choice.general or any(resolve(choice.weights[name], *tensor) != 0 for tensor in depths.items())
    )
    if not counted and depths and choice.method.base == "unused":
        raise ValueError("all merge weights are 0; at least one candidate must count")
    return replace(choice, candidates=counted) if counted else choice


def formula_maker(choice: Choice, depths: Mapping[str, float]) -> Callable[[TensorView], Formula]:
    """What makes the formula of a floating tensor, with the numbers of its depth.

    It raises ValueError where a number is not what its parameter may be.
    """
    general = None if choice.general is None else choice.candidates.index(choice.general)

    def numbers(
        tensor: str, scope: Literal["merge", "candidate"], chosen: Mapping[str, Setting], place: str
    ) -> dict[str, Number]:
        return {
            name: _number(parameter, resolve(chosen.get(name, parameter.default), tensor, depths[tensor]), place)
            for name, parameter in choice.method.parameters_of(scope).items()
        }

    def make(tensor: TensorView) -> Formula:
        name = tensor.name
        own = choice.candidate_parameters
        return choice.method.formula(
            TensorInputs(
                name,
                tensor.shape,
                weights=tuple(float(resolve(choice.weights[each], name, depths[name])) for each in choice.candidates),
                parameters=numbers(name, "merge", choice.parameters, "parameters"),
                of_candidates=tuple(
                    numbers(name, "candidate", own.get(each, {}), f"parameters of {each}") for each in choice.candidates
                ),
                candidates=choice.candidates,
                general=general,
                seed=choice.seed,
            )
        )

    return make


def _number(parameter: Parameter, value: Number, place: str) -> Number:
    """A resolved value, checked against its parameter.

    Raises:
        ValueError: it is a number in place of a switch or the reverse, not finite, or outside the limits.
    """
    if isinstance(parameter.default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    else:
        low = -math.inf if parameter.low is None else parameter.low
        high = math.inf if parameter.high is None else parameter.high
        fits = not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
        expected = f"a finite number from {low:g} to {high:g}"
    if not fits:
        raise ValueError(f"{place}: {parameter.name} must be {expected}; found {value}")
    return value


def _check_weights(candidates: Sequence[str], weights: Mapping[str, Setting]) -> None:
    if len(set(candidates)) < len(candidates):
        raise ValueError(f"candidates need a name each; found {', '.join(candidates)}")
    if set(candidates) != set(weights):
        raise ValueError(f"expected a weight for each of {', '.join(candidates)}; found {', '.join(weights) or 'none'}")
    broken = [
        f"{name} ({weight})"
        for name, weight in weights.items()
        if isinstance(weight, int | float) and not math.isfinite(weight)
    ]
    if broken:
        raise ValueError(f"merge weights must be finite numbers; these are not: {', '.join(broken)}")


def _check_count(method: Method, candidates: Sequence[str]) -> None:
    fewest, most = method.n_candidates
    if fewest <= len(candidates) and (most is None or len(candidates) <= most):
        return
    expected = (
        f"at least {fewest}" if most is None else f"exactly {fewest}" if fewest == most else f"{fewest} to {most}"
    )
    raise ValueError(
        f"method {method.name} merges {expected} candidates; found {len(candidates)}: {', '.join(candidates) or 'none'}"
    )


def _check_needs_no_base(method: Method, n_candidates: int) -> None:
    if method.base == "needed":
        raise ValueError(f"method {method.name} reads the model that all candidates were trained from; name a base")
    if method.base == "optional" and n_candidates == 1:
        raise ValueError(f"method {method.name} merges a single candidate with the base; name a base")


def _check_parameters(
    method: Method,
    candidates: Sequence[str],
    parameters: Mapping[str, Setting],
    candidate_parameters: Mapping[str, Mapping[str, Setting]],
) -> None:
    """Refuse what the method does not have, all of it at once.

    Raises:
        ValueError: a parameter does not belong to the method or stands in the wrong place, or its candidate is none.
    """
    problems = _misplaced(method, "merge", parameters, "parameters")
    for candidate, chosen in candidate_parameters.items():
        place = f"parameters of {candidate}"
        if candidate not in candidates:
            problems.append(f"{place}: there is no such candidate; candidates are {', '.join(candidates)}")
        problems += _misplaced(method, "candidate", chosen, place)
    if problems:
        raise ValueError("; ".join(problems))


def _misplaced(
    method: Method, scope: Literal["merge", "candidate"], chosen: Mapping[str, Setting], place: str
) -> list[str]:
    here = method.parameters_of(scope)
    elsewhere = {parameter.name for parameter in method.parameters} - set(here)
    where = "the parameters of the merge" if scope == "candidate" else "the parameters of a candidate"
    return [
        f"{place}: {name} of method {method.name} stands among {where}"
        if name in elsewhere
        else f"{place}: method {method.name} has no {name} there; it has {', '.join(here) or 'none'}"
        for name in chosen
        if name not in here
    ]
