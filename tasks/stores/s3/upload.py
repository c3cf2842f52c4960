"""A folder of files to S3: in parallel, what is there is skipped, and the file that means "complete" goes last.

Files that are on S3 already, of a model that several machines have merged, are copied by S3 itself.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.exceptions import ClientError

from tasks.digests import hash_bytes
from tasks.errors import StoreError, TransientStoreError
from tasks.records import FileDigest
from tasks.stores.progress import UploadProgress
from tasks.stores.s3.copies import Copy, copy_objects
from tasks.stores.s3.multipart import WORKERS, source_error, upload_large
from tasks.stores.s3.objects import S3Objects
from tasks.stores.store import Content

logger = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20
"""Files of so many bytes or more are sent in parts of it."""


def upload_file(objects: S3Objects, path: str, source: Path, digest: FileDigest) -> None:
    """Store one file of any size, whatever stands there.

    Args:
        objects: Where to.
        path: Of the object.
        source: A file on this machine.
        digest: What it must hash to.

    Raises:
        StoreError: the file is not what was announced, or S3 does not take it.
    """
    content = Content(source, digest)
    if _is_small(content, PART_BYTES):
        _upload_small(objects, path, content)
        return
    progress = UploadProgress(objects.uri(path), digest.size)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="s3-upload") as pool:
        upload_large(objects, path, source, digest, PART_BYTES, pool, progress)


def upload_folder(objects: S3Objects, path: str, contents: Mapping[str, Content], last: str, part_size: int) -> None:
    """Store a folder; see `Store.upload`.

    Args:
        objects: Where to.
        path: The folder.
        contents: Path inside the folder to content.
        last: The file that is stored when all others are there; never replaced.
        part_size: Files of this many bytes or more are sent in parts of it.

    Raises:
        StoreError: a source is not what was announced, or `last` stands there with other content.
    """
    started = time.monotonic()
    _check_sizes(contents)
    folder = path + "/" if path else ""
    others = {folder + name: content for name, content in contents.items() if name != last}
    goal = folder + last
    is_complete = _check_last(objects, goal, contents[last].digest)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="s3-upload") as pool:
        found = pool.map(objects.find, others)
        missing = [item for item, standing in zip(others.items(), found, strict=True) if standing != item[1].digest]
        copies = [Copy(name, each.source, each.digest) for name, each in missing if isinstance(each.source, str)]
        small = [item for item in missing if _is_small(item[1], part_size)]
        n_to_send = sum(each.digest.size for _, each in missing) - sum(copy.digest.size for copy in copies)
        progress = UploadProgress(objects.uri(path), n_to_send)

        def send(item: tuple[str, Content]) -> int:
            n_bytes = _upload_small(objects, *item)
            progress.add(n_bytes)
            return n_bytes

        n_sent = sum(pool.map(send, small))
        copy_objects(objects, copies, pool)
        for name, content in missing:
            if not _is_small(content, part_size) and isinstance(content.source, Path):
                n_sent += upload_large(objects, name, content.source, content.digest, part_size, pool, progress)
    if not is_complete:
        n_sent += _upload_last(objects, goal, contents[last])
    n_skipped = len(others) - len(missing) + is_complete
    logger.info(
        "uploaded %s: %d files, %d of them were there, %d bytes sent, %.1f s",
        objects.uri(path), len(contents), n_skipped, n_sent, time.monotonic() - started,
    )  # fmt: skip


def _check_sizes(contents: Mapping[str, Content]) -> None:
    """Find sources that are gone, or not of the announced size, before anything is sent."""
    problems: list[str] = []
    for content in contents.values():
        if isinstance(content.source, Path):
            try:
                size = content.source.stat().st_size
            except OSError as error:
                problems.append(f"{content.source}: cannot be read: {error}")
                continue
            if size != content.digest.size:
                problems.append(f"{content.source}: expected {content.digest.size} bytes, found {size}; it changed")
    if problems:
        raise StoreError("nothing was uploaded: " + "; ".join(problems))


def _check_last(objects: S3Objects, goal: str, digest: FileDigest) -> bool:
    """Whether the folder is complete already.

    Raises:
        StoreError: it is, with other content.
    """
    # Its bytes are compared, not what is noted about them: whoever copied the folder here may have lost the notes.
    standing = objects.read(goal)
    if standing is None:
        return False
    if hash_bytes(standing.data) == digest:
        return True
    raise StoreError(
        f"{objects.uri(goal)}: it stands there with other content, so another run has released this version; run "
        "again: that release will be found"
    )


def _is_small(content: Content, part_size: int) -> bool:
    is_small = isinstance(content.source, bytes) or content.digest.size < part_size
    return is_small and not isinstance(content.source, str)


def _upload_small(objects: S3Objects, path: str, content: Content) -> int:
    data = _read_small(content)
    objects.put(path, data, content.digest)
    return len(data)


def _upload_last(objects: S3Objects, goal: str, content: Content) -> int:
    """Bytes that were sent. Of two runs that come here at once, or of one whose answer was lost, one object stays."""
    data = _read_small(content)
    try:
        objects.put(goal, data, content.digest, IfNoneMatch="*")
    except ClientError as error:
        if not _check_last(objects, goal, content.digest):
            where = objects.uri(goal)
            raise TransientStoreError(f"{where}: another run is writing it at this moment; run again") from error
    return len(data)


def _read_small(content: Content) -> bytes:
    """A file as a whole. S3 would refuse other bytes, too, but could not say whether the file or the way was at fault.

    Raises:
        StoreError: it is not what was announced.
    """
    if isinstance(content.source, bytes):
        data, origin = content.source, "memory"
    else:
        try:
            data, origin = Path(content.source).read_bytes(), content.source
        except OSError as error:
            raise StoreError(f"{content.source}: cannot be read: {error}") from error
    if (found := hash_bytes(data)) != content.digest:
        raise source_error(origin, content.digest, found)
    return data
