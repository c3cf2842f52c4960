"""Objects that are on S3 already, copied there by S3 itself: no byte of them passes this machine."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from tasks.errors import StoreError
from tasks.records import FileDigest
from tasks.remote.s3 import parse_s3, s3_errors
from tasks.stores.s3.objects import S3Objects

MOST_BYTES = 2**30
"""What is copied in one request. S3 would take 5 GiB, and could be silent for longer than a client waits."""
_PART_BYTES = 2**28


class Copy(NamedTuple):
    """What is copied where."""

    path: str
    """Of the new object, whatever stands there."""
    source: str
    """`s3://bucket/key`, readable by whoever may write the new one."""
    digest: FileDigest
    """Its content."""


def copy_objects(objects: S3Objects, copies: Sequence[Copy], pool: Executor, most_bytes: int = MOST_BYTES) -> None:
    """Copy objects to under the prefix, several at a time.

    One that is copied in one request is hashed by S3 on the way. A larger one is copied in parts, of which S3 keeps no
    sha256 of the whole: then its size is compared, and the bytes are those that were proven when it was stored.

    Args:
        objects: Where to.
        copies: What is copied.
        pool: Sends the requests; idle.
        most_bytes: What is copied in one request.

    Raises:
        NotFoundError: there is no such object.
        StoreError: it may not be read, or is another than it was announced as.
    """
    whole = [copy for copy in copies if copy.digest.size <= most_bytes]
    for _ in pool.map(lambda copy: _copy(objects, copy, None, most_bytes), whole):
        pass
    for copy in copies:
        if copy.digest.size > most_bytes:
            _copy(objects, copy, pool, min(_PART_BYTES, most_bytes))


def _copy(objects: S3Objects, copy: Copy, pool: Executor | None, part_bytes: int) -> None:
    """Copy one object, in parts if there is a pool for them, and look at what stands there then."""
    path, source, digest = copy
    origin = parse_s3(source)
    copied = {"CopySource": {"Bucket": origin.bucket, "Key": origin.prefix}}
    with s3_errors(f"{source}, to be copied to {objects.uri(path)}"):
        if pool is None:
            objects.call(
                "copy_object", path, MetadataDirective="REPLACE", ChecksumAlgorithm="SHA256", **copied,
                **objects.new_object(digest),
            )  # fmt: skip
        else:
            _copy_in_parts(objects, path, copied, digest, pool, part_bytes)
    if (found := objects.find(path)) != digest:
        objects.delete(path)
        raise StoreError(
            f"{source}: expected sha256 {digest.sha256} ({digest.size} bytes), and its copy {objects.uri(path)} has "
            f"{found}; another run writes there, or it was changed: run again"
        )


def _copy_in_parts(
    objects: S3Objects, path: str, copied: dict[str, Any], digest: FileDigest, pool: Executor, part_bytes: int
) -> None:
    upload_id = objects.call("create_multipart_upload", path, **objects.new_object(digest))["UploadId"]

    def copy_part(start: int) -> dict[str, Any]:
        number, stop = start // part_bytes + 1, min(start + part_bytes, digest.size)
        answer = objects.call(
            "upload_part_copy", path, UploadId=upload_id, PartNumber=number,
            CopySourceRange=f"bytes={start}-{stop - 1}", **copied,
        )  # fmt: skip
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    try:
        parts = list(pool.map(copy_part, range(0, digest.size, part_bytes)))
        objects.call("complete_multipart_upload", path, UploadId=upload_id, MultipartUpload={"Parts": parts})
    except BaseException:
        objects.abort(path, upload_id)
        raise
