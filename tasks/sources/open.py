"""From a reference, as a recipe writes it, to the source behind it."""

from pathlib import Path
from typing import Literal

from tasks.errors import StoreError
from tasks.references import Place, parse_reference
from tasks.sources.folder import FolderSource
from tasks.sources.source import Source

Kind = Literal["model", "data"]


def open_source(reference: str, kind: Kind = "model") -> Source:
    """The source at a reference. Of the Hub, the revision is resolved now and stays; elsewhere nothing is read yet.

    Args:
        reference: A path, `org/name[@revision]`, `hub://org/name[/path][@revision]` or `s3://bucket/prefix`.
        kind: On the Hub, `model` means a model's repository and `data` one of data sets.

    Raises:
        StoreError: the text is no such reference (`release:` and `mlflow://` are the registry's business), or the
            place does not answer.
        NotFoundError: there is no such repository or revision, or it may not be seen.
    """
    try:
        parsed = parse_reference(reference)
    except ValueError as error:
        raise StoreError(str(error)) from error
    if parsed.place is Place.FOLDER:
        return FolderSource(Path(parsed.location))
    # The clients take a second to import, and most runs need one of them at most.
    if parsed.place is Place.S3:
        from tasks.sources.s3 import S3Source

        return S3Source(parsed.location)
    if parsed.place is Place.HUB and "/" in parsed.location:
        from tasks.sources.hub import HubSource

        return HubSource(parsed.location, "dataset" if kind == "data" else "model", parsed.revision, parsed.path)
    raise StoreError(
        f"{reference!r} is no place that files can be read from; write a path, org/name[@revision], "
        "hub://org/name[/path][@revision] or s3://bucket/prefix"
    )
