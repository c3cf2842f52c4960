"""Faults that a test asks the S3 stand-in for, by operation."""

from dataclasses import dataclass, field
from typing import Any

OPERATIONS = frozenset({
    "CreateBucket", "DeleteBucket", "HeadBucket", "GetBucketLocation", "ListObjects", "ListObjectsV2",
    "ListMultipartUploads", "DeleteObjects", "PutObject", "GetObject", "HeadObject", "DeleteObject", "CopyObject",
    "GetObjectAttributes", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "ListParts",
    "CompleteMultipartUpload", "AbortMultipartUpload",
})  # fmt: skip
CODES = {
    301: "PermanentRedirect",
    400: "ExpiredToken",
    403: "AccessDenied",
    404: "NoSuchKey",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}

# What may be given with a kind, and its default. A code of None is the usual one of the status (`CODES`).
OPTIONS: dict[str, dict[str, Any]] = {
    "status": {"status": 503, "code": None, "message": "Fault asked for by the test", "retry_after": None},
    "reset": {},
    "truncate": {},
    "flip": {"direction": "download"},
    "applied_then_lost": {},
    "delay": {"seconds": 0.2},
}


@dataclass
class Fault:
    """One fault.

    Attributes:
        operation: S3's name of the operation that it hits.
        kind: Key of `OPTIONS`.
        times: Requests left to hit; None is for ever.
        key_contains: Part of the keys that are meant.
        options: Of this kind, with defaults filled in.
        seen: Requests hit so far.
    """

    operation: str
    kind: str
    times: int | None = 1
    key_contains: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seen: int = 0

    def __post_init__(self) -> None:
        """Refuse what could never hit."""
        if self.operation not in OPERATIONS:
            raise ValueError(f"no operation {self.operation!r}; operations: {', '.join(sorted(OPERATIONS))}")
        if self.kind not in OPTIONS:
            raise ValueError(f"no kind of fault {self.kind!r}; kinds: {', '.join(OPTIONS)}")
        if unknown := set(self.options) - set(OPTIONS[self.kind]):
            raise ValueError(f"{self.kind} has no option {sorted(unknown)}; options: {sorted(OPTIONS[self.kind])}")
        self.options = {**OPTIONS[self.kind], **self.options}

    def take(self, operation: str, key: str) -> bool:
        """Whether it hits this request; counted as used if so."""
        if operation != self.operation or self.key_contains not in key or self.times == 0:
            return False
        self.times = None if self.times is None else self.times - 1
        self.seen += 1
        return True
