"""Large files as multipart uploads: parts in parallel, each proven by S3, taken up again after a kill.

A file is read once, in order, and hashed as a whole while its parts are sent. The digest it was announced with may be
minutes old, and a file that was edited since must never become a release: the upload is completed only if the bytes
that were sent hash to it. This costs one sha256 (about 1.5 GB/s) beside a network that is slower.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import CocktailError, NotFoundError, StoreError
from tasks.records import FileDigest
from tasks.remote.s3 import s3_errors
from tasks.stores.progress import UploadProgress
from tasks.stores.s3.objects import S3Objects, sha256_arguments

logger = logging.getLogger(__name__)

WORKERS = 8
_MAX_PARTS = 10_000
"""S3's own limit."""
_UPLOADS = 3
"""How many uploads of one file are begun before giving up: others may abort ours, or leave theirs of other content."""


class _OtherContent(CocktailError):
    """An unfinished upload that is not of this file."""


class _Upload(NamedTuple):
    id: str
    parts: dict[int, dict[str, Any]]
    """Number (from 1) to what S3 says of a part that it holds."""


class _SentPart(NamedTuple):
    reference: dict[str, Any]
    """What completes the upload: number, ETag, checksum."""
    size: int
    """Bytes."""
    was_there: bool


def upload_large(
    objects: S3Objects,
    path: str,
    source: Path,
    digest: FileDigest,
    part_size: int,
    pool: Executor,
    progress: UploadProgress,
) -> int:
    """Store a file of more than one part; an unfinished upload of it, of whatever run, is taken up again.

    In memory are at most `WORKERS` parts.

    Args:
        objects: Where to.
        path: Of the object.
        source: The file.
        digest: What it must hash to.
        part_size: Bytes of a part; larger where the file would have too many.
        pool: Sends the parts; must be idle, or the bound on memory does not hold.
        progress: Told of every part that is there.

    Returns:
        Bytes that were sent.

    Raises:
        StoreError: the file is not what was announced, or S3 does not take it.
    """
    unfit: set[str] = set()
    n_sent = 0
    for _ in range(_UPLOADS):
        upload = _find_upload(objects, path, unfit) or _begin_upload(objects, path, digest)
        try:
            size = max(part_size, -(-digest.size // _MAX_PARTS))
            n_sent += _send(objects, path, upload, source, digest, size, pool, progress)
        except NotFoundError:
            # Another run completed or aborted this upload, or we did and the answer was lost.
            logger.info("%s: the upload is gone; looking at what stands there", objects.uri(path))
        except _OtherContent:
            unfit.add(upload.id)
            continue
        # Metadata belongs to the upload and cannot be listed: whose an adopted one was shows only in the object.
        if objects.find(path) == digest:
            _abort_all(objects, path)
            return n_sent
    raise StoreError(
        f"{objects.uri(path)}: {_UPLOADS} uploads of {source} did not leave an object with sha256 {digest.sha256} and "
        f"{digest.size} bytes; another run seems to write there: let it end, then run again"
    )


def source_error(source: Path | str, expected: FileDigest, found: FileDigest) -> StoreError:
    """What to say of a file that is not what was announced."""
    return StoreError(
        f"{source}: expected sha256 {expected.sha256} ({expected.size} bytes), found {found.sha256} ({found.size} "
        "bytes); it changed while it was released, or the disk is faulty"
    )


def _find_upload(objects: S3Objects, path: str, unfit: Collection[str]) -> _Upload | None:
    """The unfinished upload of an object that is furthest on; None if there is none with parts."""
    found: list[_Upload] = []
    for upload in objects.list_uploads(path):
        if upload.path == path and upload.upload_id not in unfit and upload.checksum in (None, "SHA256"):
            parts = {part["PartNumber"]: part for part in _list_parts(objects, path, upload.upload_id)}
            found.append(_Upload(upload.upload_id, parts))
    best = max(found, key=lambda upload: len(upload.parts), default=None)
    if best is None or not best.parts:
        return None
    logger.info("%s: taking up an unfinished upload of which %d parts are there", objects.uri(path), len(best.parts))
    return best


def _list_parts(objects: S3Objects, path: str, upload_id: str) -> list[dict[str, Any]]:
    try:
        return objects.list_parts(path, upload_id)
    except NotFoundError:
        return []


def _begin_upload(objects: S3Objects, path: str, digest: FileDigest) -> _Upload:
    with s3_errors(objects.uri(path)):
        answer = objects.call("create_multipart_upload", path, ChecksumAlgorithm="SHA256", **objects.new_object(digest))
    return _Upload(answer["UploadId"], {})


def _send(
    objects: S3Objects,
    path: str,
    upload: _Upload,
    source: Path,
    digest: FileDigest,
    part_size: int,
    pool: Executor,
    progress: UploadProgress,
) -> int:
    """Send what the upload lacks and complete it; the bytes that were sent."""
    whole = hashlib.sha256()

    def send_part(number: int, data: bytes) -> _SentPart:
        part = _send_part(objects, path, upload, number, data)
        progress.add(len(data))
        return part

    parts = list(_in_order(pool, send_part, _read_parts(source, part_size, whole.update)))
    found = FileDigest(whole.hexdigest(), sum(part.size for part in parts))
    if found != digest:
        objects.abort(path, upload.id)
        raise source_error(source, digest, found)
    references = [part.reference for part in parts]
    with s3_errors(objects.uri(path)):
        objects.call(
            "complete_multipart_upload", path, UploadId=upload.id, MultipartUpload={"Parts": references},
            MpuObjectSize=digest.size,
        )  # fmt: skip
    return sum(part.size for part in parts if not part.was_there)


def _read_parts(source: Path, part_size: int, update: Callable[[bytes], object]) -> Iterator[tuple[int, bytes]]:
    """Number and content of every part, in order, each hashed as it is read."""
    number = 0
    try:
        with source.open("rb") as file:
            while data := file.read(part_size):
                update(data)
                number += 1
                yield number, data
    except OSError as error:
        raise StoreError(f"{source}: cannot be read: {error}") from error


def _in_order(
    pool: Executor, work: Callable[[int, bytes], _SentPart], parts: Iterator[tuple[int, bytes]]
) -> Iterator[_SentPart]:
    """Results in the order of the parts; no part is read before there is a worker for it."""
    running: deque[Future[_SentPart]] = deque()
    try:
        for number, data in parts:
            running.append(pool.submit(work, number, data))
            if len(running) == WORKERS:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _send_part(objects: S3Objects, path: str, upload: _Upload, number: int, data: bytes) -> _SentPart:
    sha256 = hashlib.sha256(data).digest()
    checksum = sha256_arguments(sha256)
    standing = upload.parts.get(number)
    if standing is None:
        with s3_errors(objects.uri(path)):
            answer = objects.send("upload_part", path, UploadId=upload.id, PartNumber=number, Body=data, **checksum)
        etag: str = answer["ETag"]
    elif _is_same(standing, data, checksum["ChecksumSHA256"]):
        etag = standing["ETag"]
    else:
        raise _OtherContent(f"{objects.uri(path)}: part {number} of an unfinished upload is not of this file")
    reference = {"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum["ChecksumSHA256"]}
    return _SentPart(reference, len(data), was_there=standing is not None)


def _is_same(standing: dict[str, Any], data: bytes, checksum: str) -> bool:
    """Whether a part that S3 holds is `data`: by its sha256, or where S3 does not list that, by the MD5 in its ETag."""
    if standing["Size"] != len(data):
        return False
    if "ChecksumSHA256" in standing:
        return standing["ChecksumSHA256"] == checksum
    return standing["ETag"].strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


def _abort_all(objects: S3Objects, path: str) -> None:
    """Drop what is left of other uploads: those begun twice because an answer was lost, and those of other content."""
    for upload in objects.list_uploads(path):
        if upload.path == path:
            objects.abort(path, upload.upload_id)
