"""From a destination, as a recipe or a command line writes it, to the store behind it."""

from pathlib import Path

from tasks.errors import StoreError
from tasks.references import Place, parse_reference
from tasks.stores.folder import FolderStore
from tasks.stores.store import Store


def open_store(destination: str) -> Store:
    """The store at a destination; nothing is read or written yet.

    Raises:
        StoreError: the destination has no known form, or is of a kind that cannot hold releases yet.
    """
    try:
        reference = parse_reference(destination)
    except ValueError as error:
        raise StoreError(f"destination {destination!r}: {error}") from error
    if reference.place is not Place.FOLDER:
        raise StoreError(
            f"destination {destination!r} is on {reference.place.value}; this version releases to folders only: write "
            "a path that begins with /, ./ or ../"
        )
    return FolderStore(Path(reference.location))
