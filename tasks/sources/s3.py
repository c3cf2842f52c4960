"""A prefix on S3, or one object, as it was listed: objects are read by the ETag that the list gave.

An object that is replaced between the list and its download is an error, never a mixture of both.
"""

import base64
import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tasks.errors import NotFoundError, StoreError
from tasks.remote.access import S3Access, s3_access
from tasks.remote.s3 import is_conflict, parse_s3, s3_client, s3_errors
from tasks.sources.source import RemoteFile, Report, find_file
from tasks.sources.transfer import CHUNK_BYTES, append_download, read_bytes

MANIFEST_FILE = "manifest.json"
"""Of our own releases (`tasks.registry.files`): it names the sha256 of every file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
# A manifest names files and numbers; what is larger is something else of that name.
_LARGEST_MANIFEST_BYTES = 64 * 2**20


class S3Source:
    """The objects under `s3://bucket/prefix/`, or the one object of that very name."""

    def __init__(self, uri: str, access: S3Access | None = None):
        """Nothing is read yet.

        Args:
            uri: `s3://bucket/prefix`, or `s3://bucket/key` of one object.
            access: How S3 is reached; None: as this run was given it, or as the environment says.
        """
        access = access or s3_access()
        self._place = parse_s3(uri)
        self._client = s3_client(access)
        self._payer = {"RequestPayer": "requester"} if access.requester_pays else {}
        self._described: dict[str, RemoteFile] = {}

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return self._place.uri()

    @property
    def revision(self) -> str:
        """Empty: S3 has no name for a state of a prefix."""
        return ""

    def list_files(self) -> Mapping[str, RemoteFile]:
        """Every file by its path, sorted; listed once. In a release of ours the manifest adds the sha256.

        Raises:
            NotFoundError: there is no such bucket, and nothing under the prefix.
            StoreError: access is refused.
        """
        return self._files

    def describe(self, path: str) -> RemoteFile:
        """One file with the checksums that S3 holds of it: one HEAD per file, where the manifest does not say it all.

        Raises:
            NotFoundError: there is no such file, or not any more.
            StoreError: it was replaced since it was listed.
        """
        listed = find_file(self._files, path, self.uri)
        if listed.sha256 is None and path not in self._described:
            head = self._head(self._key(path), self._where(path))
            found = _described(head)
            if found.identity != listed.identity:
                raise self._replaced(path)
            self._described[path] = found
        return self._described.get(path, listed)

    def find_copy(self, path: str) -> Path | None:
        """None: nobody keeps copies of S3 objects here."""
        return None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of a file; fewer only at its end. Errors as `Source.read_range`."""
        size = find_file(self._files, path, self.uri).size
        return read_bytes(start, min(start + length, size), self._opener(path), self._where(path))

    def download(self, path: str, folder: Path, report: Report) -> Path:
        """Bring one file whole into `folder`; errors and use of earlier attempts as `Source.download`."""
        size = find_file(self._files, path, self.uri).size
        return append_download(folder / "part", size, self._opener(path), self._where(path), report)

    @cached_property
    def _files(self) -> dict[str, RemoteFile]:
        listed = self._listing[1]
        manifest = listed.get(MANIFEST_FILE)
        if manifest is None or manifest.size > _LARGEST_MANIFEST_BYTES:
            return listed
        data = read_bytes(0, manifest.size, self._opener(MANIFEST_FILE), self._where(MANIFEST_FILE))
        known = _manifest_digests(data)
        return {path: replace(file, sha256=known.get((path, file.size))) for path, file in listed.items()}

    @cached_property
    def _listing(self) -> tuple[str, dict[str, RemoteFile]]:
        """What all keys begin with, and the files by the rest of their keys."""
        prefix = self._place.key("") + "/" if self._place.prefix else ""
        if files := self._list(prefix):
            return prefix, files
        if not self._place.prefix:
            raise NotFoundError(f"{self.uri}: this bucket is empty; look at the name's spelling")
        folder, slash, name = self._place.prefix.rpartition("/")
        try:
            return folder + slash, {name: _described(self._head(self._place.prefix, self.uri))}
        except NotFoundError as error:
            raise NotFoundError(
                f"{self.uri}: there is nothing under this prefix and no object of this name; look at its spelling"
            ) from error

    def _list(self, prefix: str) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        with s3_errors(self.uri):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._place.bucket, Prefix=prefix, **self._payer)
            for entry in (entry for page in pages for entry in page.get("Contents", ())):
                path = entry["Key"].removeprefix(prefix)
                if path and not path.endswith("/"):  # Consoles make empty objects that stand for folders.
                    found[path] = RemoteFile(entry["Size"], _identity(entry["ETag"], entry["Size"]))
        return {path: found[path] for path in sorted(found)}

    def _head(self, key: str, where: str) -> Any:
        with s3_errors(where):
            return self._client.head_object(Bucket=self._place.bucket, Key=key, ChecksumMode="ENABLED", **self._payer)

    def _opener(self, path: str) -> Any:
        etag = self._listing[1][path].identity.split(":")[1]

        @contextmanager
        def open_stream(start: int, stop: int) -> Generator[tuple[int, Iterator[bytes]]]:
            asked = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": f'"{etag}"', **self._payer}
            with s3_errors(self._where(path)):
                try:
                    answer = self._client.get_object(Bucket=self._place.bucket, Key=self._key(path), **asked)
                except ClientError as error:
                    raise (self._replaced(path) if is_conflict(error) else error) from error
                with closing(answer["Body"]) as body:
                    yield start if "ContentRange" in answer else 0, body.iter_chunks(CHUNK_BYTES)

        return open_stream

    def _key(self, path: str) -> str:
        return self._listing[0] + path

    def _where(self, path: str) -> str:
        return f"s3://{self._place.bucket}/{self._key(path)}"

    def _replaced(self, path: str) -> StoreError:
        return StoreError(
            f"{self._where(path)}: the object was replaced since it was listed; run again to plan with what is there "
            "now, and write models to a new prefix while refreshes run"
        )


def _identity(etag: str, size: int) -> str:
    return f"etag:{etag.strip(chr(34))}:{size}"


def _described(head: Mapping[str, Any]) -> RemoteFile:
    """What a HEAD says about an object.

    The sha256 is what a release of ours wrote into the metadata, else S3's own. Checksums of checksums (of objects
    that were uploaded in parts) say nothing about the whole.
    """
    identity = _identity(head["ETag"], head["ContentLength"])
    stated = str(head.get("Metadata", {}).get("sha256", ""))
    whole = {
        name: base64.b64decode(head[f"Checksum{name}"]).hex()
        for name in ("SHA256", "SHA1", "CRC32")
        if "-" not in head.get(f"Checksum{name}", "-") and head.get("ChecksumType") != "COMPOSITE"
    }
    sha256 = stated if _SHA256.fullmatch(stated) else whole.get("SHA256")
    checksum = next((f"{name.lower()}:{whole[name]}" for name in ("SHA1", "CRC32") if name in whole), "")
    return RemoteFile(head["ContentLength"], identity, sha256, checksum)


def _manifest_digests(data: bytes) -> dict[tuple[str, int], str]:
    """Path and size to sha256, if this is the manifest of a release; empty for any other file of that name."""
    try:
        files = json.loads(data)["files"]
        found = {(str(path), int(file["size"])): str(file["sha256"]) for path, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
    return {key: sha256 for key, sha256 in found.items() if _SHA256.fullmatch(sha256)}
