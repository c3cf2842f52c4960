"""What is watched: the triggers of the alerts, and what people are told.

A trigger is on the events of `flows/events.py` or, for what no process can say of itself any more, on Prefect's own on
flow runs: crashed, late, silent. The texts are Jinja templates, which the server renders when an alert goes off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from glob import escape

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.events import FAILED, JUMPED, MODEL_PREFIX, NIGHTS_LABEL, PENDING, REJECTED, TALLY, UNCHANGED

FLOWS = ("candidate-ready", "refresh")
"""Flows whose runs are watched."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_LATE = "prefect.flow-run.Late"
_STARTED_OR_OVER = {
    f"prefect.flow-run.{state}"
    for state in ("Pending", "Running", "Completed", "Failed", "Crashed", "Cancelling", "Cancelled", "Rescheduled")
} | {"prefect.flow-run.AwaitingConcurrencySlot"}  # A worker has it, and another run has its turn.
_RUN = "{% if flow_run %}\nRun: {{ (flow_run|ui_url) or flow_run.name }}{% endif %}"
_MODEL = "\nModel: {{ event.payload.destination }}"
# A version goes live before it is copied to further destinations, so a failed copy takes nothing back.
_LIVE = (
    "{% if event.payload.step == 'publish' %}The new version may be live: cocktail explain "
    "{{ event.payload.destination }}{% else %}What was live is live.{% endif %}"
)

Related = ResourceSpecification | dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """What is watched, and when somebody is told."""

    model: str | None = None
    """destination/name; None for every model."""
    deployment: str | None = None
    """Whose runs are watched for crashes and lateness; None for those of every deployment, and by hand."""
    nights: int = 3
    """An unchanged night is told when the inputs have been the same for so many, and again after as many."""
    late_minutes: int = 30
    silent_minutes: int = 9
    """A run that gives no sign of life for so long is taken for dead: at least three of Prefect's heartbeats
    (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, 180 s)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition, and what people are told; `subject` and `text` are Jinja templates that the server renders."""

    name: str
    description: str
    trigger: EventTrigger
    subject: str
    text: str


def model_alerts(settings: AlertSettings) -> list[Alert]:
    """Alerts on what a night came to."""
    match = {"prefect.resource.id": MODEL_PREFIX + (escape(settings.model) if settings.model else "*")}

    def on(event: str) -> EventTrigger:
        return EventTrigger(match=_matching(match), expect={event})

    return [
        Alert(
            "failed",
            "A refresh ended with an error.",
            on(FAILED),
            "{{ event.resource.name }}: refresh failed",
            "{{ event.payload.error }}{% if event.payload.step %} in step {{ event.payload.step }}{% endif %}: "
            f"{{{{ event.payload.message }}}}{_MODEL}{_RUN}\n{_LIVE}",
        ),
        Alert(
            "rejected",
            "The gate let no model pass.",
            on(REJECTED),
            "{{ event.resource.name }}: the gate said no",
            "{% for reason in event.payload.reasons %}- {{ reason }}\n{% endfor %}"
            "Live: {{ event.payload.champion or 'nothing' }}\nReport: {{ event.payload.report or 'none' }}"
            f"{_MODEL}{_RUN}",
        ),
        _unchanged(settings, match),
        Alert(
            "weights jumped",
            "The weights are not those of the release that is live.",
            on(JUMPED),
            "{{ event.resource.name }}: the weights jumped",
            f"{{% for change in event.payload.changes %}}- {{{{ change }}}}\n{{% endfor %}}{_MODEL.lstrip()}{_RUN}",
        ),
        Alert(
            "waiting",
            "A version waits for a person (promote: manual).",
            on(PENDING),
            "{{ event.resource.name }}: {{ event.payload.version }} waits for a person",
            "Send it live: cocktail promote {{ event.payload.destination }} {{ event.payload.version }} --alias "
            f"{{{{ event.payload.alias }}}} --reason WHY{_RUN}",
        ),
    ]


def _unchanged(settings: AlertSettings, match: Mapping[str, str]) -> Alert:
    trigger = EventTrigger(
        match=_matching({**match, NIGHTS_LABEL: TALLY * settings.nights + "*"}),
        expect={UNCHANGED},
        for_each={"prefect.resource.id"},
        # A trigger that has fired is quiet for the rest of its period.
        within=timedelta(days=settings.nights),
    )
    return Alert(
        "unchanged",
        f"The inputs have been the same for {settings.nights} nights.",
        trigger,
        "{{ event.resource.name }}: nothing new for {{ event.payload.nights }} nights",
        "{{ event.payload.reason }}\nSince: {{ event.payload.since }}\nAre new candidates still made, and does the "
        f"recipe name them by a branch or alias that moves?{_MODEL}{_RUN}",
    )


def run_alerts(settings: AlertSettings) -> list[Alert]:
    """Alerts on runs that cannot say themselves what became of them."""
    related: list[Related] = [_matching({"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)})]
    if settings.deployment:
        name = escape(settings.deployment)
        related.append(_matching({"prefect.resource.role": "deployment", "prefect.resource.name": name}))
    match = _matching({"prefect.resource.id": "prefect.flow-run.*"})
    crashed = EventTrigger(match=match, match_related=related, expect={"prefect.flow-run.Crashed"})
    late = EventTrigger(
        match=match,
        match_related=related,
        after={_LATE},
        expect=_STARTED_OR_OVER,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=timedelta(minutes=settings.late_minutes),
    )
    return [
        Alert(
            "crashed",
            "A run's process or machine is gone.",
            crashed,
            "{{ event.resource.name }} crashed",
            f"{{{{ event.resource['prefect.state-message'] }}}}{_RUN}\nReaders see nothing half; cocktail explain says "
            "what is live. Retry goes on where it stopped: scores are cached, and written shards are kept.",
        ),
        Alert(
            "late",
            f"A run has not started {settings.late_minutes} minutes after it was found late.",
            late,
            "{{ event.resource.name }} does not start",
            "It was due at {{ flow_run.expected_start_time }}. Does a worker run? prefect worker start --pool "
            f"{{{{ flow_run.work_pool_name }}}}{_RUN}",
        ),
    ]


def zombie_automation(settings: AlertSettings) -> AutomationCore:
    """Runs that fell silent become crashed, of which the alert `crashed` tells.

    Of whatever model: a heartbeat does not name its deployment, and a dead run is dead for everybody.
    """
    flows = _matching({"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)})
    trigger = EventTrigger(
        match=_matching({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=flows,
        after={_HEARTBEAT},
        expect={"prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=timedelta(minutes=settings.silent_minutes),
    )
    message = f"no sign of life for {settings.silent_minutes} minutes: its process or machine is gone"
    return AutomationCore(
        name="lm-cocktail: zombies",
        description="A run without heartbeats is crashed; see also lm-cocktail: crashed.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)],
    )


def _matching(labels: Mapping[str, str] | Mapping[str, str | list[str]]) -> ResourceSpecification:
    return ResourceSpecification(dict(labels))
