"""Faults that a test asks the Hub stand-in for, by route."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

# What may be given with a kind, and its default.
OPTIONS: dict[str, dict[str, Any]] = {
    "status": {"status": 503, "retry_after": None, "message": "Fault asked for by the test", "code": None},
    "expired": {},
    "reset": {},
    "truncate": {},
    "flip": {},
    "applied_then_lost": {},
    "delay": {"seconds": 0.2},
}


@dataclass
class Fault:
    """One fault; `seen` counts the requests it hit.

    Attributes:
        route: Name of the route.
        kind: Key of `OPTIONS`.
        times: Requests left to hit; None is for ever.
        path: Part of the path of the requests that are meant.
        method: Only requests of this method.
        after: Requests that are let through first.
        options: Of this kind, with defaults filled in.
        seen: Requests hit so far.
    """

    route: str
    kind: str
    times: int | None = 1
    path: str = ""
    method: str | None = None
    after: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    seen: int = 0

    def matches(self, route: str, method: str, path: str) -> bool:
        """Whether this request is one that the fault is about and has times left for."""
        named = route == self.route and self.path in path and self.method in (None, method)
        return named and (self.times is None or self.times > 0)


class Faults:
    """The faults of one server, tried in the order in which they were asked for."""

    def __init__(self, routes: Collection[str]) -> None:
        self._routes = routes
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Keep a fault after checking that it can ever hit; fills in the options' defaults."""
        if fault.route not in self._routes:
            raise ValueError(f"no route {fault.route!r}; routes: {', '.join(sorted(self._routes))}")
        if fault.kind not in OPTIONS:
            raise ValueError(f"no kind of fault {fault.kind!r}; kinds: {', '.join(OPTIONS)}")
        defaults = OPTIONS[fault.kind]
        if unknown := set(fault.options) - set(defaults):
            raise ValueError(f"{fault.kind} has no option {sorted(unknown)}; options: {sorted(defaults)}")
        fault.options = {**defaults, **fault.options}
        self._faults.append(fault)
        return fault

    def take(self, route: str, method: str, path: str) -> Fault | None:
        """The fault that hits this request, counted as used."""
        for fault in self._faults:
            if not fault.matches(route, method, path):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.seen += 1
            fault.times = None if fault.times is None else fault.times - 1
            return fault
        return None

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()


def flipped(body: bytes) -> bytes:
    """The body with the byte in its middle inverted; empty stays empty."""
    middle = len(body) // 2
    return body[:middle] + bytes(255 - byte for byte in body[middle : middle + 1]) + body[middle + 1 :]
