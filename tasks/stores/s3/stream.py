"""Answers of S3 whose body arrives in pieces: broken ones are noticed, and taken up where they broke off."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

from botocore.exceptions import ClientError, FlexibleChecksumError

from tasks.errors import TransientStoreError
from tasks.records import FileDigest
from tasks.remote.s3 import is_conflict, s3_errors

_CHUNK_BYTES = 2**20


class HashedStream:
    """A download that is hashed while it arrives.

    Attributes:
        metadata: Of the object, once something was read.
    """

    def __init__(self, get: Callable[..., dict[str, Any]], where: str):
        """Nothing is asked yet.

        Args:
            get: `get_object` of one object; takes Range and IfMatch.
            where: The object, for messages.
        """
        self._get, self._where = get, where
        self._begin()

    def read_on(self) -> FileDigest:
        """Read to the end and return the digest of the whole.

        Raises:
            TransientStoreError: the stream broke off or was damaged; call again to go on.
            ClientError: as `get` says.
        """
        if self._n_read != self._size:
            answer = self._ask()
            with s3_errors(self._where), closing(answer["Body"]) as body:
                self._read(body)
        return FileDigest(self._sha256.hexdigest(), self._n_read)

    def _read(self, body: Any) -> None:
        try:
            while chunk := body.read(_CHUNK_BYTES):
                self._sha256.update(chunk)
                self._n_read += len(chunk)
        except FlexibleChecksumError:
            self._begin()  # A byte flipped, and nobody knows which.
            raise

    def _begin(self) -> None:
        self._sha256, self._n_read = hashlib.sha256(), 0
        self._size, self._etag = -1, ""
        self.metadata: dict[str, str] = {}

    def _ask(self) -> dict[str, Any]:
        rest = {"Range": f"bytes={self._n_read}-", "IfMatch": self._etag} if self._n_read else {}
        try:
            answer = self._get(**rest)
        except ClientError as error:
            if not is_conflict(error):
                raise
            self._begin()
            raise TransientStoreError(f"{self._where}: it was replaced while it was read") from error
        if "ContentRange" not in answer:
            # The first time, or a service that knows no ranges and sends all of it again.
            self._begin()
            self._size, self._etag, self.metadata = answer["ContentLength"], answer["ETag"], answer["Metadata"]
        return answer
