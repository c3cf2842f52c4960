"""A recipe as a deployment on a Prefect server: started by a schedule, by an event, from the UI or by REST.

Deployments hold the recipe itself, with absolute references, as the default of the run form; so no worker needs its
file. Flows are named by module (`flows.refresh:refresh`), which must be installed where the worker runs.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import DeploymentApplyError
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_UI_URL
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import ParameterSchema

from flows.approval import approve
from flows.candidate_ready import CANDIDATE_READY, FAMILY_LABEL, candidate_ready
from flows.refresh import refresh
from tasks.errors import CocktailError, RecipeError
from tasks.recipe import Recipe
from tasks.references import Place, parse_reference
from tasks.settings import CacheSettings

logger = logging.getLogger(__name__)

_ENVIRONMENT = {"PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,flows"}
"""The steps' own log lines show beside Prefect's."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as the server has it now."""

    name: str
    """`flow/deployment`, as `prefect deployment run` takes it."""
    id: str
    url: str | None
    """Its page in the UI, where the server says where that is."""


def deploy_recipe(
    recipe: Recipe,
    *,
    name: str,
    pool: str,
    cron: str | None = None,
    timezone: str = "UTC",
    on_candidate: bool = False,
    family: str | None = None,
    cache: CacheSettings | None = None,
    environment: Mapping[str, str] | None = None,
) -> Deployed:
    """Make or change the deployment of a recipe, and of the question that it asks with `publish.approval_hours`.

    Args:
        recipe: With absolute references, as `read_recipe` gives it.
        name: Of the deployment; one of that name is replaced, its schedule too.
        pool: Work pool whose workers run it.
        cron: When it runs by itself; one run at a time, and one that falls due during another is left out. None: it
            waits to be started, and one after the other runs.
        timezone: Of the schedule, by its name in the IANA database.
        on_candidate: Start it whenever a candidate is announced as ready (`lm-cocktail.candidate.ready`).
        family: Only by candidates announced with this family; None: by any.
        cache: Where workers keep results and downloads; None for the cache folder of whoever runs the worker.
        environment: Further variables for the run's process.

    Raises:
        RecipeError: the schedule or time zone cannot be.
        CocktailError: the server has no such pool, or refuses the deployment.
    """
    _check_pool(pool)
    flow: Any = candidate_ready if on_candidate else refresh
    strategy = ConcurrencyLimitStrategy.CANCEL_NEW if cron else ConcurrencyLimitStrategy.ENQUEUE
    parameters: dict[str, Any] = {"recipe": recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    if cache is not None:
        parameters["cache"] = cache.model_dump(mode="json")
    made = flow.to_deployment(
        name=name,
        schedule=_schedule(cron, timezone) if cron else None,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        parameters=parameters,
        triggers=[_candidate_trigger(family)] if on_candidate else [],
        work_pool_name=pool,
        job_variables={"env": _ENVIRONMENT | dict(environment or {})},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    _refuse_unknown_parameters(made)
    _remove_named_schedules(f"{flow.name}/{name}")
    found = _apply(made)
    if recipe.publish is not None and recipe.publish.approval_hours is not None:
        _deploy_approval(recipe, pool, environment or {})
    address = PREFECT_UI_URL.value()
    return Deployed(f"{flow.name}/{name}", found, f"{address}/deployments/deployment/{found}" if address else None)


def local_references(recipe: Recipe) -> list[str]:
    """What the recipe names by a path, so that every worker must have it at that place."""
    places = [recipe.base, *(part for each in recipe.candidates for part in (each.model, each.adapter))]
    general = recipe.weigh.general.examples if recipe.weigh.general else None
    places += [rows for rows in (recipe.examples, general) if isinstance(rows, str)]
    places += [place for task in recipe.evaluate for place in (task.data, task.include_path)]
    places += [rule.against for rule in recipe.gate.rules if rule.against.startswith("release:")]
    places += recipe.publish.to if recipe.publish else []
    programs = [task.command for task in recipe.evaluate] + [_run_on_promotion(recipe)]
    arguments = [argument for program in programs for argument in program or () if argument.startswith("/")]
    folders = [folder for place in places if place is not None and (folder := _folder_of(place))]
    return list(dict.fromkeys([*folders, *arguments]))


def _run_on_promotion(recipe: Recipe) -> list[str] | None:
    return recipe.publish.on_promote.command if recipe.publish and recipe.publish.on_promote else None


def _folder_of(place: str) -> str | None:
    """The path that a reference names, if it names one; of a release, that of its destination."""
    reference = parse_reference(place)
    if reference.place is Place.RELEASE:
        return _folder_of(reference.location)
    return place if reference.place is Place.FOLDER else None


def _deploy_approval(recipe: Recipe, pool: str, environment: Mapping[str, str]) -> None:
    """Runs of it are started by the recipe's refreshes; its name is the one that `request_approval` asks for."""
    flow: Any = approve
    made = flow.to_deployment(
        name=recipe.name,
        description=f"Asks a person whether a version of {recipe.name} goes live.",
        work_pool_name=pool,
        job_variables={"env": _ENVIRONMENT | dict(environment)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    _apply(made)


def _apply(made: Any) -> str:
    """The id of a deployment that the server has made, or changed, as it was told."""
    try:
        return str(made.apply())
    except (DeploymentApplyError, PrefectHTTPStatusError) as error:
        raise CocktailError(f"deployment {made.name}: the server refuses it: {error}") from error


def _remove_named_schedules(deployment: str) -> None:
    """Remove the schedules that have slugs, such as those of a prefect.yaml, from a deployment that is there.

    The server replaces those without; those with slugs it would keep, or refuse ours beside them.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return
        for schedule in found.schedules:
            if schedule.slug is not None:
                client.delete_deployment_schedule(found.id, schedule.id)


class _ClosedParameters(ParameterSchema):
    additionalProperties: Literal[False] = False


def _refuse_unknown_parameters(made: Any) -> None:
    """Let the server answer 409 to a name that the flow does not have; Prefect would start the run, and it crashes."""
    told = made._parameter_openapi_schema.model_dump()
    # Given, not left to its default: what was not given is not sent to the server.
    made._parameter_openapi_schema = _ClosedParameters(**told, additionalProperties=False)


def _schedule(cron: str, timezone: str) -> CronSchedule:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise RecipeError(f"--timezone {timezone}: there is no such time zone; write one as Europe/Berlin") from error
    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise RecipeError(f"--cron {cron!r}: this is no cron schedule; four in the morning is '0 4 * * *'") from error


def _candidate_trigger(family: str | None) -> DeploymentEventTrigger:
    return DeploymentEventTrigger(
        name="a candidate is ready",
        expect={CANDIDATE_READY},
        match=ResourceSpecification.model_validate({FAMILY_LABEL: family} if family else {}),
        parameters={"candidate": "{{ event.payload.candidate }}", "model": "{{ event.payload.model }}"},
    )


def _check_pool(pool: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            raise CocktailError(
                f"--pool {pool}: the server has no such work pool; `prefect work-pool create {pool} --type process` "
                "makes one, and `prefect worker start` runs what is deployed to it"
            ) from error
