"""Reading the manifests of all versions of one name: several at a time, and each only once."""

import logging
import re
from typing import Any

from tasks.errors import NotFoundError, ReleaseError
from tasks.parallel import map_requests
from tasks.registry.files import decode_manifest
from tasks.stores.store import Store

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"

_VERSION = re.compile(r"\d{8}-[0-9a-f]{12}")


def is_version(text: str) -> bool:
    """Whether a name is one of a version, not of an alias or of some other folder."""
    return _VERSION.fullmatch(text) is not None


def load_manifest(store: Store, folder: str) -> dict[str, Any]:
    """The manifest in a version's folder; NotFoundError if there is none, ReleaseError if it is damaged."""
    where = f"{folder}/{MANIFEST_FILE}"
    return decode_manifest(store.read_bytes(where), store.uri(where))


def list_manifests(store: Store, folder: str, known: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Complete versions with their manifests, by sequence; names decide between equal ones.

    Args:
        store: Where the versions are.
        folder: The folder of all versions of a name.
        known: Manifests that were read before. They never change, so only others are read, and added here.
    """

    def find(version: str) -> dict[str, Any] | None:
        if version not in known:
            try:
                known[version] = load_manifest(store, f"{folder}/{version}")
            except NotFoundError:
                return None
            except ReleaseError as error:
                # A damaged one must not stop a night.
                logger.warning("version %s is left out: %s", version, error)
                return None
        return known[version]

    versions = [name for name in store.list_names(folder) if is_version(name)]
    manifests = zip(versions, map_requests(find, versions), strict=True)
    found = [(version, manifest) for version, manifest in manifests if manifest is not None]
    return sorted(found, key=lambda entry: (entry[1]["sequence"], entry[0]))
