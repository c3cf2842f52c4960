"""A person's yes or no to a version that waits (`promote: manual`), asked for in the Prefect UI.

The question is a small flow run of its own, `approve`, which a refresh starts when its release waits. It suspends until
somebody answers: no process, no worker and no slot of the nightly deployment is held meanwhile, and a server or worker
that is restarted forgets nothing. Had the refresh itself paused, a killed worker would have lost the answer; had it
suspended, the answer would have made it run again from its start, perhaps on other inputs. What is asked and answered
stands in the registry, so both flows may be killed and run again at any moment.
"""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import httpx
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.states import Completed
from pydantic import Field, StringConstraints

from flows.artifacts import name_failure, show_question
from flows.connections import load_access
from flows.events import announce
from flows.logs import let_steps_speak
from flows.waiting import Waiting, ask_briefly, describe_waiting, find_end, read_compared
from tasks.errors import CocktailError
from tasks.recipe import Recipe
from tasks.registry.address import split_destination
from tasks.registry.files import AliasState
from tasks.registry.promotion import promote
from tasks.registry.refusals import refuse
from tasks.registry.releases import open_registry
from tasks.remote.access import use_access
from tasks.settings import ConnectionSettings

logger = logging.getLogger(__name__)

FROM_ENVIRONMENT = ConnectionSettings()

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Answer(RunInput):
    """The form that the Prefect UI shows."""

    # A choice, no switch: one that nobody touched would be submitted as a no.
    answer: Literal["send it live", "refuse it"] = Field(
        description="A refused version does not go live until somebody unblocks it."
    )
    by: Said = Field(description="Who answers; kept in the history.")
    reason: Said = Field(description="Why; kept in the history.")


def deployment_name(recipe: Recipe) -> str:
    """The deployment whose runs ask about a recipe's releases."""
    return f"approve/{recipe.name}"


def request_approval(recipe: Recipe, version: str | None, compared_with: str | None) -> str | None:
    """Start the flow run that asks a person about a version, if the recipe wants it and the version waits.

    One question is asked once, however often this is called. A release stands, whatever becomes of the question: what
    is wrong is logged. Without a server that stays (PREFECT_API_URL) nobody could answer, so nobody is asked.

    Args:
        recipe: Says whether and for how long to ask.
        version: What a night released or found released; None if there is none.
        compared_with: The version that was live when the night was planned.

    Returns:
        Where and how the version goes live, in a sentence; None if it does not wait for a person.
    """
    settings = recipe.publish
    if settings is None or settings.promote != "manual" or version is None:
        return None
    waiting = Waiting(open_registry(settings.to[0], recipe.name), version, settings.alias, compared_with)
    said = f"{version} waits for a person: `{waiting.by_hand}` sends it live"
    try:
        if find_end(waiting) is not None:
            return None
        if settings.approval_hours is None or not PREFECT_API_URL.value():
            return said
        run = _start_run(recipe, waiting, settings.approval_hours)
    except CocktailError as error:
        logger.warning("the UI asks nobody about %s: its registry cannot be read: %s", version, error)
    except ObjectNotFound:
        name = deployment_name(recipe)
        logger.warning(
            "the UI asks nobody about %s: there is no deployment %s; `cocktail deploy` makes it", version, name
        )
    except (PrefectException, httpx.HTTPError) as error:
        logger.warning(
            "the UI asks nobody about %s: flow run not started: %s; the next run tries again", version, error
        )
    else:
        return f"{said}{_describe_run(run)}"
    return said


@flow(
    name="approve",
    flow_run_name="approve {version} of {destination}",
    persist_result=True,
    result_serializer="json",
    on_failure=[name_failure],
)
def approve(
    destination: str,
    version: str,
    compared_with: str | None = None,
    alias: str = "champion",
    hours: float = 72.0,
    connections: ConnectionSettings = FROM_ENVIRONMENT,
) -> State[dict[str, Any]]:
    """Ask a person whether a version goes live, and do what the answer says.

    Resume the run in the UI to answer. Once suspended it runs again from its start when it is resumed, so all that may
    have happened meanwhile is seen before the answer counts.

    Args:
        destination: destination/name, e.g. /models/assistant or s3://models/assistant.
        version: The version that waits.
        compared_with: The version that was live when the gate let it pass; left out: none was.
        alias: The name that readers follow.
        hours: How long to wait; then the run fails and the version waits on.
        connections: Prefect blocks with credentials; left out: the environment decides.

    Raises:
        AliasConflictError: another version is live by now, so the gate compared with the wrong one.
        ReleaseError: the version is blocked or incomplete.
        CocktailError: this run has no deployment, so nobody could resume it.
    """
    let_steps_speak()
    address = split_destination(destination)
    with use_access(*load_access(connections)):
        registry = open_registry(address.destination, address.name)
        waiting = Waiting(registry, registry.resolve(version), alias, compared_with)
        if (ended := find_end(waiting)) is not None:
            return _end(waiting, *ended)
        expected = read_compared(waiting)
        answer = _ask(waiting, hours)
        return _approve(waiting, answer, expected) if answer.answer == "send it live" else _refuse(waiting, answer)


def _start_run(recipe: Recipe, waiting: Waiting, hours: float) -> FlowRun:
    location = waiting.registry.location
    question = (location, waiting.version, waiting.alias, waiting.compared_with)
    run = run_deployment(
        deployment_name(recipe),
        parameters={
            "destination": location,
            "version": waiting.version,
            "compared_with": waiting.compared_with,
            "alias": waiting.alias,
            "hours": hours,
            "connections": recipe.connections.model_dump(mode="json"),
        },
        timeout=0,
        # The refresh is over long before the answer.
        as_subflow=False,
        # The server has one run per key: a refresh that is tried again finds the run that it started before.
        idempotency_key="approve " + " ".join(map(str, question)),
    )
    return cast(FlowRun, run)  # In a flow that is not async it is no coroutine.


def _describe_run(run: FlowRun) -> str:
    url = PREFECT_UI_URL.value()
    where = f"{url}/runs/flow-run/{run.id}" if url else f"flow run {run.id} in the Prefect UI"
    if run.state is not None and run.state.is_final():
        return f"; {where} asked about it and ended as {run.state.name}"
    return f", and so does a yes to {where}"


def _ask(waiting: Waiting, hours: float) -> Answer:
    """The answer, where there is one already; otherwise the run is suspended and this does not return."""
    if deployment.id is None:
        raise CocktailError(
            "only the run of a deployment can wait for a person; deploy the recipe with publish.approval_hours, or "
            f"send the version live by hand: `{waiting.by_hand}`"
        )
    attempt = 0
    while True:
        # Prefect forgets on a retry which questions it asked, but keeps their forms and answers under these keys.
        key = f"approval-{attempt}"
        keys = keyset_from_base_key(f"suspended-{key}")
        if given := read_flow_run_input(keys["response"]):
            return Answer.model_validate(given)
        if read_flow_run_input(keys["schema"]) is None:
            artifact = show_question(waiting.registry.name, describe_waiting(waiting, hours))
            logger.info(
                "shall %s go live? Resume asks for the answer, for %g hours; the artifact %s says what to know",
                waiting.version,
                hours,
                artifact,
            )
            form = Answer.with_initial_data(description=ask_briefly(waiting, hours, artifact))
            return suspend_flow_run(wait_for_input=form, key=key, timeout=max(1, round(hours * 3600)))
        logger.info("nobody answered the question about %s in time; it is asked again", waiting.version)
        attempt += 1


def _approve(waiting: Waiting, answer: Answer, expected: AliasState | None) -> State[dict[str, Any]]:
    registry, version, alias, now = waiting.registry, waiting.version, waiting.alias, datetime.now(UTC)
    promote(registry, version, alias, by=_who(answer), reason=answer.reason, now=now, expected=expected)
    announce("promoted", registry.location, alias, version, answer.reason)
    return _end(waiting, "Approved", f"{alias} points at {version}: approved by {answer.by}: {answer.reason}")


def _refuse(waiting: Waiting, answer: Answer) -> State[dict[str, Any]]:
    refuse(waiting.registry, waiting.version, by=_who(answer), reason=answer.reason, now=datetime.now(UTC))
    announce("refused", waiting.registry.location, waiting.alias, waiting.version, answer.reason)
    return _end(waiting, "Refused", f"{waiting.version}: refused by {answer.by}: {answer.reason}")


def _who(answer: Answer) -> str:
    # The form takes any name; the run leads to whom the server knows.
    return f"{answer.by} (flow run {flow_run.id})"


def _end(waiting: Waiting, name: str, message: str) -> State[dict[str, Any]]:
    logger.info("approve: %s", message)
    data = {"status": name.lower(), "version": waiting.version, "message": message}
    return Completed(name=name, message=message, data=data)
