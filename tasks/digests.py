"""What content is known by: sha256 of files, of bytes, and of JSON values."""

import hashlib
import json
from pathlib import Path

from tasks.records import FileDigest


def hash_file(path: Path) -> FileDigest:
    """sha256 and size of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(digest.hexdigest(), file.tell())


def hash_bytes(data: bytes) -> FileDigest:
    """sha256 and size of bytes in memory."""
    return FileDigest(hashlib.sha256(data).hexdigest(), len(data))


def hash_json(value: object) -> str:
    """sha256 of a JSON value, in 64 hex digits: equal for equal values, whatever the order of their keys.

    Raises:
        ValueError: NaN or infinity, which JSON has no word for.
        TypeError: something that is no JSON value.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """JSON text that is equal for equal values; errors as in `hash_json`."""
    # Keys become text before they are sorted: 10 sorts after 9, "10" before "9".
    plain = json.loads(json.dumps(value, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
