"""The page's sentences without the paths of the machine that wrote it: they are passed on, where paths mean nothing."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from tasks.night_records import RefreshReport
from tasks.records import Checkpoint
from tasks.references import Place, parse_reference

# An absolute path of two parts or more, not the path of a URL; and what names a path in a reference or a URI.
_PATH = re.compile(r"(?:(?:file://|(?<=release:)|(?<![\w.:/…~]))/)(?:[^\s/'\"<>|;,()]+/)+([^\s/'\"<>|;,()]*)")
_LEAST_PARTS = 2


def without_machine_paths(report: RefreshReport) -> RefreshReport:
    """The same report with `…/name` for every absolute path in sentences: reasons, warnings, changes and checks."""
    known = sorted(_known_paths(report), key=len, reverse=True)

    def clean(sentence: str) -> str:
        for path in known:
            sentence = sentence.replace(f"file://{path}", path).replace(path, f"…/{path.rpartition('/')[2]}")
        return _PATH.sub(lambda found: f"…/{found[1]}", sentence)

    def all_clean(sentences: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(clean, sentences))

    plan, trust, health = report.plan, report.weights.trust, report.merged.health
    trust = replace(trust, warnings=all_clean(trust.warnings), changes=all_clean(trust.changes))
    return replace(
        report,
        plan=replace(
            plan,
            warnings=all_clean(plan.warnings),
            left_out={name: clean(reason) for name, reason in plan.left_out.items()},
        ),
        scores=tuple(replace(score, warnings=all_clean(score.warnings)) for score in report.scores),
        weights=replace(report.weights, trust=trust),
        merged=replace(report.merged, health=health and replace(health, warnings=all_clean(health.warnings))),
        gate=replace(report.gate, reasons=all_clean(report.gate.reasons)),
        sanity=tuple(replace(check, sentence=clean(check.sentence)) for check in report.sanity),
    )


def origin_of(part: Checkpoint) -> str:
    """Where a model came from, as it can be said anywhere: on the Hub, on S3 or released there, by name."""
    reference = parse_reference(part.model)
    place = parse_reference(reference.location) if reference.place is Place.RELEASE else reference
    return "a folder" if place.place is Place.FOLDER else part.model


def revision_of(part: Checkpoint) -> str:
    """A revision's first digits: a commit, a version, or the content itself."""
    return part.revision.removeprefix("sha256:")[:12] if len(part.revision) > 24 else part.revision


def _known_paths(report: RefreshReport) -> Iterator[str]:
    """Every path that the recipe names. They are found whole, also where they hold spaces."""
    for found in _strings(report.recipe):
        path = found.removeprefix("release:").partition("@")[0]
        if path.startswith("/") and path.rstrip("/").count("/") >= _LEAST_PARTS:
            yield path.rstrip("/")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast(dict[str, Any], value).values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            yield from _strings(inner)
