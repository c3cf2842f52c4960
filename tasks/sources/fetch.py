"""Bring files of a source to this machine, prove their content, and keep them by it."""

import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.cache import ResultCache
from tasks.digests import hash_json
from tasks.errors import StoreError
from tasks.pruning import MODELS
from tasks.records import FileDigest
from tasks.sources.keep import check_unchanged, keep_file, known_content, remember_content
from tasks.sources.parallel import Counter, Progress, in_parallel
from tasks.sources.source import Report, Source, find_file
from tasks.staging import check_space, locked, staged, writing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file on this machine whose content was proven."""

    path: Path
    """In the cache's content store; of a folder, the file itself. Read it, never write it."""
    digest: FileDigest


def known_digest(source: Source, path: str, cache: ResultCache) -> FileDigest | None:
    """The content of a file, if the place says so or an earlier download found it; none of its bytes are read.

    Args:
        source: Where the file is.
        path: Its path inside the source.
        cache: What remembers earlier downloads.

    Raises:
        NotFoundError: the source has no such file.
        StoreError: the source cannot be listed.
    """
    remote = find_file(source.list_files(), path, source.uri)
    if not remote.identity:
        return None  # It lies here, and its content is found by reading it.
    if (known := known_content(source, path, remote, cache)) is not None:
        return known
    described = source.describe(path).digest
    if described is not None:
        remember_content(source, path, described, cache)
    return described


def known_digests(source: Source, paths: Iterable[str], cache: ResultCache) -> dict[str, FileDigest | None]:
    """As `known_digest`, for several files at once, in the order of `paths`."""
    source.list_files()
    return in_parallel(list(paths), lambda path: known_digest(source, path, cache))


def fetch_files(
    source: Source,
    paths: Iterable[str],
    cache: ResultCache,
    report: Progress | None = None,
    expected: Mapping[str, FileDigest] | None = None,
) -> dict[str, FetchedFile]:
    """Bring files here, several at a time; what the cache holds already is not asked for again.

    Args:
        source: Where the files are. Those of a folder stay where they lie and are only hashed.
        paths: Their paths inside the source.
        cache: Where they are kept, by content; what was broken off goes on from there the next time.
        report: Told of progress.
        expected: Content that files must have, by path (of a manifest or an earlier plan); may name some of them.

    Returns:
        Path to file, in the order of `paths`.

    Raises:
        NotFoundError: files are not there, or not any more.
        TransientStoreError: the network failed, after all attempts.
        StoreError: the content is not what was expected or what the place says, twice; or the cache cannot be written.
    """
    listed, expected = source.list_files(), expected or {}
    wanted = {path: find_file(listed, path, source.uri) for path in paths}
    counter = Counter(sum(file.size for file in wanted.values()), report)
    kept = {path: file for path in wanted if (file := _find_kept(source, path, cache, expected.get(path)))}
    counter.add(sum(file.digest.size for file in kept.values()))
    missing = [path for path in wanted if path not in kept]
    n_bytes = sum(wanted[path].size for path in missing if wanted[path].identity and not source.find_copy(path))
    if n_bytes:
        check_space(cache.folder, n_bytes)

    def fetch(path: str) -> FetchedFile:
        if not wanted[path].identity:
            return _read_here(source, path, cache, counter.add, expected.get(path))
        return FetchedFile(*keep_file(source, path, cache, counter.add, expected.get(path)))

    fetched = in_parallel(missing, fetch, counter.stop)
    if n_bytes:
        logger.info("fetched %d files, %.1f MB, from %s", len(missing), n_bytes / 1e6, source.uri)
    return {path: kept.get(path) or fetched[path] for path in wanted}


def link_folder(files: Mapping[str, FetchedFile], cache: ResultCache) -> Path:
    """A folder in which fetched files lie under their own names, as links; equal files, equal folder.

    Args:
        files: Path inside the folder to file.
        cache: Where the folder is made; it is kept as long as its files are.

    Raises:
        StoreError: the cache cannot be written, or a path leads out of the folder.
    """
    if outside := [path for path in files if not {"", ".", ".."}.isdisjoint(path.split("/"))]:
        raise StoreError(f"files must lie inside the folder they are linked into; found {', '.join(outside)}")
    name = hash_json({path: file.digest.sha256 for path, file in files.items()})
    folder = cache.folder / MODELS / name
    with writing(folder):
        if not _is_whole(folder, files):
            lock = folder.with_name(f".{name}.lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock):
                if not _is_whole(folder, files):  # Another process may have been as fast.
                    _make_links(folder, files, cache)
                lock.unlink()
    return folder


def _find_kept(source: Source, path: str, cache: ResultCache, expected: FileDigest | None) -> FetchedFile | None:
    """The file in the content store, if its content is known and was fetched before, from wherever.

    Raises:
        StoreError: it is known to have another content than the expected.
    """
    remote = source.list_files()[path]
    known = known_content(source, path, remote, cache)
    check_unchanged(source, path, known, expected)
    digest = known or expected
    found = cache.find_file(digest) if digest and remote.identity else None
    return FetchedFile(found, digest) if found and digest else None


def _read_here(
    source: Source, path: str, cache: ResultCache, report: Report, expected: FileDigest | None
) -> FetchedFile:
    """A file of this machine, hashed where it lies."""
    found = source.download(path, cache.folder, report)
    try:
        digest = cache.digest_file(found)
    except OSError as error:
        raise StoreError(f"{found}: cannot be read: {error.strerror or error}") from error
    if expected is not None and digest != expected:
        raise StoreError(
            f"{found}: the file changed: expected sha256 {expected.sha256} ({expected.size:,} bytes), found "
            f"{digest.sha256} ({digest.size:,} bytes); run again to plan with what is there now"
        )
    return FetchedFile(found, digest)


def _make_links(folder: Path, files: Mapping[str, FetchedFile], cache: ResultCache) -> None:
    with staged(folder) as draft:
        for path, file in files.items():
            link = draft / path
            link.parent.mkdir(parents=True, exist_ok=True)
            # Relative inside the cache, which may be moved or mounted elsewhere.
            is_ours = file.path.is_relative_to(cache.folder)
            link.symlink_to(os.path.relpath(file.path, (folder / path).parent) if is_ours else file.path)
        if folder.is_dir():
            shutil.rmtree(folder)  # Its links lead to files that were pruned, or moved.
        draft.rename(folder)


def _is_whole(folder: Path, files: Mapping[str, FetchedFile]) -> bool:
    return folder.is_dir() and all(_leads_to(folder / path, file.path) for path, file in files.items())


def _leads_to(link: Path, goal: Path) -> bool:
    return link.exists() and link.samefile(goal)
