"""What DEST means on the command line: destination/name[@version-or-alias]."""

import re
from typing import NamedTuple

from tasks.errors import StoreError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What models and aliases may be called."""

_DESTINATION_PREFIXES = ("/", "./", "../", "s3://", "hub://")


class ReleaseAddress(NamedTuple):
    """What DEST means on the command line."""

    destination: str
    name: str
    revision: str | None
    """Version or alias; None if DEST names none."""


def split_destination(text: str) -> ReleaseAddress:
    """Take `destination/name[@version-or-alias]` apart, e.g. `./releases/demo@champion`.

    Raises:
        StoreError: it has another form.
    """
    head, _, tail = text.rstrip("/").rpartition("/")
    name, _, revision = tail.partition("@")
    is_known_place = text.startswith(_DESTINATION_PREFIXES) and not head.endswith(":/")
    if not is_known_place or not NAME.fullmatch(name):
        raise StoreError(
            f"{text!r} names no releases; write destination/name, such as ./releases/demo or s3://models/demo, with "
            "@version or @alias behind it where one release is meant"
        )
    return ReleaseAddress(head or "/", name, revision or None)
