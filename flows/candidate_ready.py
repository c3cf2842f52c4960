"""A refresh that something else starts: a training job, or a push to the Hub, says that a candidate is ready.

The event is `lm-cocktail.candidate.ready`, with the candidate's name and reference in its payload. A deployment whose
trigger waits for it starts this flow; see `deployments/README.md`.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed
from pydantic import ValidationError

from flows.artifacts import name_failure
from flows.events import announce_failure
from flows.refresh import DEFAULT_CACHE, refresh
from tasks.errors import RecipeError
from tasks.recipe import Recipe
from tasks.settings import CacheSettings

CANDIDATE_READY = "lm-cocktail.candidate.ready"
FAMILY_LABEL = "lm-cocktail.family"


@flow(
    name="candidate-ready",
    flow_run_name="{candidate} for {recipe.name}",
    persist_result=True,
    result_serializer="json",
    on_failure=[announce_failure, name_failure],
)
def candidate_ready(
    recipe: Recipe,
    candidate: str,
    model: str,
    force: bool = False,
    dry_run: bool = False,
    cache: CacheSettings = DEFAULT_CACHE,
) -> State[dict[str, Any]]:
    """Refresh with a candidate that has just become ready.

    Args:
        recipe: What to mix, how to weigh and merge it, what to check and where to publish.
        candidate: Name of the candidate. One that the recipe has takes the new model; another joins the others.
        model: Where the candidate is: org/name@revision, s3://..., release:DEST@alias, or an absolute path.
        force: Do the work even if the same inputs were decided before.
        dry_run: Stop before publishing; nothing is written to a destination.
        cache: Where results and downloads are kept between runs.
    """
    state = refresh(with_candidate(recipe, candidate, model), force, dry_run, cache, return_state=True)
    # As the refresh ended, so does this; of a state itself Prefect would only say that all states completed.
    return Completed(name=state.name, message=state.message, data=state.result())


def with_candidate(recipe: Recipe, name: str, model: str) -> Recipe:
    """The recipe with a candidate's model replaced, or with one more candidate.

    Raises:
        RecipeError: the recipe cannot have such a candidate, e.g. because its weights are given one by one, or has one
            of that name with an adapter, which was trained on the old model.
    """
    adapter = next((each.adapter for each in recipe.candidates if each.name == name), None)
    if adapter is not None:
        raise RecipeError(
            f"candidate {name} ({model}) does not fit into recipe {recipe.name}: the candidate of that name is a model "
            f"with the adapter {adapter}, which would be added to the new one; announce it under another name"
        )
    content = recipe.model_dump(mode="json", by_alias=True)
    # What a lock file pinned of the old model says nothing of the new one.
    new = {"name": name, "model": model, "digest": None}
    names = [each["name"] for each in content["candidates"]]
    if name in names:
        content["candidates"][names.index(name)] |= new
    else:
        content["candidates"].append(new)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise RecipeError(f"candidate {name} ({model}) does not fit into recipe {recipe.name}: {problems}") from error


def announce_candidate(name: str, model: str, family: str | None = None) -> None:
    """Tell whoever waits for it that a candidate is ready: to be called at the end of a training job.

    Args:
        name: The candidate's name in recipes.
        model: Its reference, as recipes take it.
        family: Which base it belongs to, for triggers that wait for some candidates only.
    """
    labels = {FAMILY_LABEL: family} if family else {}
    resource = {"prefect.resource.id": f"lm-cocktail.candidate.{name}", "prefect.resource.name": name, **labels}
    emit_event(event=CANDIDATE_READY, resource=resource, payload={"candidate": name, "model": model})
