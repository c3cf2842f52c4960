"""What the Hub knows content by, and content that was read a while ago."""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")

# Git's sha1, or the sha256 of an LFS file.
_IDENTITY = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def identities(data: bytes) -> tuple[str, str]:
    """What the Hub calls a file with this content: git's blob id, and sha256 for an LFS file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha256(data).hexdigest()


def find_identity(headers: Iterable[Mapping[str, str]]) -> str | None:
    """What the Hub says the content of an answer is; None if it does not say.

    Args:
        headers: Of the answer and of the redirections to it, in the order in which they came. Only the Hub's own
            says what an LFS file is; the storage behind it has ETags of another kind.
    """
    for answer in headers:
        for name in ("X-Linked-Etag", "ETag"):
            tag = answer.get(name, "").removeprefix("W/").strip('"')
            if _IDENTITY.fullmatch(tag):
                return tag
    return None


class Recent(Generic[Value]):
    """The values that were kept or used last, a bounded number of them; threads may share it."""

    def __init__(self, limit: int):
        self._limit = limit
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Value | None:
        """What was kept under a key; None if it is not there any more."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: Value) -> Value:
        """Keep a value, and return it."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value
