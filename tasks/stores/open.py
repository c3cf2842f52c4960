"""From a destination, as a recipe or a command line writes it, to the store behind it."""

from pathlib import Path

from tasks.errors import StoreError
from tasks.references import Place, Reference, parse_reference
from tasks.stores.folder import FolderStore
from tasks.stores.store import Store


def open_store(destination: str) -> Store:
    """The store at a destination; nothing is read or written yet.

    Raises:
        StoreError: the destination has no known form, or is of a kind that holds no releases.
    """
    try:
        reference = parse_reference(destination)
    except ValueError as error:
        raise StoreError(f"destination {destination!r}: {error}") from error
    # The clients of S3 and the Hub are slow to import, and a release to a folder needs neither.
    if reference.place is Place.S3:
        from tasks.stores.s3.store import S3Store

        return S3Store(reference.location)
    if reference.place is Place.HUB:
        organisation = _organisation(destination, reference)
        from tasks.stores.hub.store import HubStore

        return HubStore(organisation)
    if reference.place is Place.FOLDER:
        return FolderStore(Path(reference.location))
    raise StoreError(_refusal(destination, reference))


def _organisation(destination: str, reference: Reference) -> str:
    organisation, _, name = reference.location.partition("/")
    if name or reference.path or reference.revision:
        raise StoreError(
            f"destination {destination!r} is a repository on the Hub; write the organisation alone, "
            f"hub://{organisation}: releases go to the repository that is called as the recipe"
        )
    return organisation


def _refusal(destination: str, reference: Reference) -> str:
    if reference.place is Place.MLFLOW:
        return (
            f"destination {destination!r} holds no files: MLflow keeps where a model lies; write a path, s3://... or "
            "hub://org, and name MLflow beside it"
        )
    return (
        f"destination {destination!r} is one release; write the place that releases go to: a path that begins with "
        "/, ./ or ../, s3://bucket/prefix, or hub://org"
    )
