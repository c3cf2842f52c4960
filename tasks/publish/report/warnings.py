"""Everything that a person should be wary of, by where it comes from."""

from collections.abc import Iterator

from tasks.night_records import RefreshReport
from tasks.publish.report.html import bullets, escape, paragraph, section, tag
from tasks.trust_summaries import scoring_sentences


def render_warnings(report: RefreshReport) -> str:
    """Groups of warnings, and the checks that any usable model passes; says so where there is nothing."""
    groups = "".join(f"{tag('h3', escape(title))}\n{bullets(found, 'warnings')}" for title, found in _groups(report))
    return section("Warnings and checks", groups or paragraph("There are no warnings."), *_checks(report))


def _groups(report: RefreshReport) -> Iterator[tuple[str, list[str]]]:
    plan, health = report.plan, report.merged.health
    groups = {
        "Left out": [f"{name}: {reason}" for name, reason in plan.left_out.items()],
        "Plan": list(plan.warnings),
        "Losses": scoring_sentences(report.scores),
        "Weights": list(report.weights.trust.warnings),
        "Merge": list(health.warnings) if health else [],
    }
    for title, found in groups.items():
        if found:
            yield title, found


def _checks(report: RefreshReport) -> Iterator[str]:
    if not report.sanity:
        return
    rows = ""
    for check in report.sanity:
        outcome, sign = ("passed", "✓") if check.passed else ("failed", "✕")
        spoken = f'<span class="sign" role="img" aria-label="{outcome}">{sign}</span> '
        told = check.sentence.removeprefix(f"sanity, {check.name}: ")
        rows += f'<li class="{outcome}">{spoken}{tag("strong", escape(check.name))}: {escape(told)}</li>\n'
    yield f"{tag('h3', 'Sanity of the merged model')}\n{tag('ul', rows, 'rules')}\n"
