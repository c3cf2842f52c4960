"""Of several destinations the first is the truth; a recipe may not make another the first by writing it there."""

import logging

from tasks.errors import ReleaseError, StoreError
from tasks.registry.releases import Registry, open_registry
from tasks.settings import PublishSettings

logger = logging.getLogger(__name__)


def check_is_truth(registry: Registry, settings: PublishSettings) -> None:
    """Refuse a first destination where nothing was ever live while one of the others has a live version.

    So it is where a recipe names a new place first: what the old one has live, and what is blocked there, would not
    count any more. Places that cannot be read are left out.

    Raises:
        ReleaseError: it is so.
    """
    if registry.read_alias(settings.alias) is not None:
        return
    for destination in settings.to[1:]:
        if destination.startswith("mlflow://"):
            continue
        try:
            state = open_registry(destination, registry.name).read_alias(settings.alias)
        except (StoreError, ReleaseError) as error:
            logger.warning("publish: %s is not compared with the first destination: %s", destination, error)
            continue
        if state is not None and state.history:
            raise ReleaseError(
                f"{registry.location}: {settings.alias} points at nothing here, but at {state.version} in "
                f"{destination}, with a history and blocks that would be lost; to change the first destination, "
                "name the new one second for one night, so that it gets all of that, and then change the order"
            )
