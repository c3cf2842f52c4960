"""References to models, data and places: `org/name@revision`, `s3://...`, `release:DEST@alias`, `mlflow://...`, paths.

A name without `/`, `./` or `../` in front is never taken for a folder: a recipe must not change its meaning
because a folder of that name happens to exist.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# The organisation alone is a destination; what stands behind the repository's name is a path in it.
_HUB_ADDRESS = re.compile(r"([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)((?:/[\w.-]+)*)")
_PATH_PREFIXES = ("/", "./", "../")
_PASSWORD = re.compile(r"://[^/]*:[^/]*@")


class Place(StrEnum):
    """Where a reference leads."""

    FOLDER = "folder"
    HUB = "hub"
    S3 = "s3"
    RELEASE = "release"
    MLFLOW = "mlflow"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference."""

    place: Place
    location: str
    """Path, `org/name`, `s3://bucket/prefix`, the destination of a release (itself a reference), or the address of an
    MLflow server (empty: the one that MLFLOW_TRACKING_URI names)."""
    revision: str | None = None
    """Hub: branch, tag or commit. Release: version or alias. None: the place's default."""
    path: str = ""
    """Hub: file or folder inside the repository; empty: all of it."""


def parse_reference(text: str) -> Reference:
    """Read a reference as contract and recipe write it.

    Raises:
        ValueError: it has none of the known forms; the message lists them. Or it holds a password, and is not repeated.
    """
    if _PASSWORD.search(text):
        raise ValueError(
            "this address holds a password, and recipes, logs and releases would show it; leave out what stands before "
            "the @, and set credentials in the environment or name a block under connections"
        )
    if text.startswith("release:"):
        location, _, revision = text.removeprefix("release:").rpartition("@")
        if not location:
            location, revision = revision, ""
        parse_reference(location)
        return Reference(Place.RELEASE, location, revision or None)
    if text.startswith(_PATH_PREFIXES) or text in (".", ".."):
        return Reference(Place.FOLDER, text)
    if text.startswith("s3://"):
        if not text.removeprefix("s3://").strip("/"):
            raise ValueError(f"{text!r} names no bucket; write s3://bucket/prefix")
        return Reference(Place.S3, text.rstrip("/"))
    if text.startswith("mlflow://"):
        return Reference(Place.MLFLOW, text.removeprefix("mlflow://").rstrip("/"))
    name, _, revision = text.removeprefix("hub://").partition("@")
    if _HUB_NAME.fullmatch(name):
        return Reference(Place.HUB, name, revision or None)
    if text.startswith("hub://") and (address := _HUB_ADDRESS.fullmatch(name.rstrip("/"))):
        return Reference(Place.HUB, address[1], revision or None, address[2].strip("/"))
    raise ValueError(
        f"{text!r} is not a reference; write org/name[@revision] or hub://org/name[/path][@revision] for the Hub, "
        "s3://bucket/prefix, release:DEST[@alias], or a path that begins with /, ./ or ../"
    )


def canonical(text: str) -> str:
    """A reference in full: `org/name`, `hub://org/name` and `org/name@main` are all `hub://org/name@main`."""
    reference = parse_reference(text)
    if reference.place is not Place.HUB:
        return text
    address = "/".join(part for part in (reference.location, reference.path) if part)
    return f"hub://{address}@{reference.revision or 'main'}"


def make_absolute(text: str, folder: Path | None) -> str:
    """Resolve a reference's relative path against the folder of the recipe's file.

    Raises:
        ValueError: the path is relative and there is no such folder, or the text is no reference.
    """
    reference = parse_reference(text)
    if reference.place is Place.RELEASE:
        suffix = f"@{reference.revision}" if reference.revision else ""
        return f"release:{make_absolute(reference.location, folder)}{suffix}"
    if reference.place is not Place.FOLDER or text.startswith("/"):
        return text
    if folder is None:
        raise ValueError(
            f"{text!r} is a relative path, but this recipe did not come from a file that it could be relative to; "
            "write an absolute path"
        )
    return str((folder / text).resolve())


def local_path(uri: str) -> Path:
    """The path of a `file://` URI.

    Raises:
        ValueError: the URI is not of this machine's file system.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ValueError(f"{uri} is not a file on this machine; download it first")
    return Path(unquote(parts.path))
