"""Credentials from named Prefect blocks, for the length of a flow run.

A recipe names blocks (`connections: {s3: aws-credentials/prod}`), never secrets. Where it names none, boto3 and
huggingface_hub find their credentials in the environment, and nothing here is used.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from tasks.errors import RecipeError
from tasks.recipe import Recipe
from tasks.remote.access import HubAccess, S3Access, hub_access, s3_access, use_access
from tasks.settings import ConnectionSettings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_S3_KEYS = tuple(S3Access.__dataclass_fields__)


def with_connections(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function, whose first argument is a recipe, as the recipe's connections say.

    Prefect hands the context to the tasks that the function submits, so they are the same to S3 and the Hub.
    """

    @functools.wraps(function)
    def connected(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        recipe = cast(Recipe, args[0] if args else kwargs["recipe"])
        s3, hub = load_access(recipe.connections)
        with use_access(s3, hub):
            return function(*args, **kwargs)

    return connected


def load_access(connections: ConnectionSettings) -> tuple[S3Access | None, HubAccess | None]:
    """What the named blocks say; None for a place that is left to the environment.

    Raises:
        RecipeError: there is no such block, it cannot be loaded, or it holds something else.
    """
    s3 = _s3_access(connections.s3) if connections.s3 else None
    hub = _hub_access(connections.hub) if connections.hub else None
    return s3, hub


def _s3_access(name: str) -> S3Access:
    block = _load(name, "connections.s3")
    if name.startswith("secret/"):
        return _from_secret(name, block.get())
    # aws-credentials of the package prefect-aws, which is there if the block could be loaded. It says who we are; how
    # objects are encrypted and who pays are no credentials, and stay the environment's business.
    parameters, ours = block.aws_client_parameters, s3_access()
    return S3Access(
        endpoint_url=parameters.endpoint_url,
        region=block.region_name,
        access_key_id=block.aws_access_key_id,
        secret_access_key=_plain(block.aws_secret_access_key),
        session_token=_plain(block.aws_session_token),
        kms_key_id=ours.kms_key_id,
        requester_pays=ours.requester_pays,
    )


def _from_secret(name: str, content: Any) -> S3Access:
    if not isinstance(content, Mapping):
        raise RecipeError(f"connections.s3: block {name} holds no object; its keys are {', '.join(_S3_KEYS)}")
    given = cast(Mapping[str, Any], content)
    if unknown := sorted(key for key in given if key not in _S3_KEYS):
        raise RecipeError(f"connections.s3: block {name} has unknown keys {', '.join(unknown)}; known are {_S3_KEYS}")
    return S3Access(**given)


def _hub_access(name: str) -> HubAccess:
    content = _load(name, "connections.hub").get()
    if not isinstance(content, str):
        raise RecipeError(f"connections.hub: block {name} holds no text; it must hold a token of the Hub")
    # The endpoint is no secret and so stays the environment's business.
    return HubAccess(content, endpoint=hub_access().endpoint)


def _load(name: str, key: str) -> Any:
    # Prefect takes seconds to import, and only recipes that name a block need it here.
    from prefect.blocks.core import Block, UnknownBlockType

    try:
        return Block.load(name)  # pyright: ignore[reportUnknownMemberType]
    except UnknownBlockType as error:
        raise RecipeError(f"{key}: block {name} is of a type that is not installed; pip install prefect-aws") from error
    except ValueError as error:
        raise RecipeError(
            f"{key}: there is no block {name}; make it in the Prefect UI under Blocks (or `prefect block create`), or "
            "leave the key out and set credentials in the environment"
        ) from error


def _plain(secret: Any) -> str | None:
    return secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
