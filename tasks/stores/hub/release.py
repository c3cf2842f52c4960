"""Uploading a version to the Hub: put together on a branch, verified there, then tagged."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

from tasks.digests import hash_bytes
from tasks.errors import StoreError, TransientStoreError
from tasks.records import FileDigest
from tasks.remote.retries import with_retries
from tasks.stores.hub.commits import check_ours, ensure_repo
from tasks.stores.hub.paths import release_branch, release_tag
from tasks.stores.hub.repository import MAIN, Entry, HubRepo, Refs
from tasks.stores.store import Content

logger = logging.getLogger(__name__)

# Smaller files are read once, proved, and sent from memory, so that they cannot change on the way.
_LARGEST_IN_MEMORY_BYTES = 2**20
_CHUNK_BYTES = 2**20


class ReleaseUpload:
    """One version on its way to the Hub. Every attempt looks first, so a kill or a lost answer costs no file twice."""

    def __init__(self, repo: HubRepo, version: str, contents: Mapping[str, Content], last: str, uri: str):
        self._repo, self._uri, self._last = repo, uri, last
        self._version, self._branch, self._tag = version, release_branch(version), release_tag(version)
        self._contents = dict(sorted(contents.items()))
        self._blob_ids: dict[str, str] = {}
        self._additions: dict[str, CommitOperationAdd] = {}

    def run(self) -> None:
        """Upload, verify and tag; nothing but looking is done if the tag stands with this content.

        Raises:
            StoreError: the tag stands with other content, a source has changed, or the Hub holds other bytes than
                were sent.
        """
        try:
            with_retries(self._attempt, self._uri)
        except OSError as error:
            raise StoreError(f"{self._uri}: a file that is to be released cannot be read: {error}") from error

    def _attempt(self) -> None:
        refs = ensure_repo(self._repo)
        if (standing := refs.tags.get(self._tag)) is not None:
            self._check_standing(self._repo.tree(standing))
            return
        head = self._ensure_branch(refs)
        wrong, strangers = self._compare(self._repo.tree(head))
        if wrong or strangers:
            head = self._commit(head, wrong, strangers)
            wrong, strangers = self._compare(self._repo.tree(head))
        if wrong or strangers:
            raise StoreError(
                f"{self._uri}: after the upload branch {self._branch} is not what was sent: "
                f"{', '.join([*wrong, *strangers])}; look at the repository's .gitignore, then run again"
            )
        # A tag that another run has set meanwhile is an error of the moment: the next attempt looks at what it holds.
        self._repo.create_tag(self._tag, head)
        logger.info("upload: %s is complete, %d files", self._uri, len(self._contents))

    def _ensure_branch(self, refs: Refs) -> str:
        """Head of the version's branch; a new one begins at `main`, of which a new version shares the small files."""
        if (head := refs.branches.get(self._branch)) is None:
            check_ours(self._repo, refs)
            head = refs.branches[MAIN]
            self._repo.create_branch(self._branch, head)
        return head

    def _compare(self, tree: Mapping[str, Entry]) -> tuple[list[str], list[str]]:
        """Files that the commit lacks or holds differently, and files that do not belong in it."""
        wrong = [path for path in self._contents if path not in tree or not self._is_same(path, tree[path])]
        return wrong, [path for path in tree if path not in self._contents]

    def _is_same(self, path: str, entry: Entry) -> bool:
        digest = self._contents[path].digest
        if entry.sha256 is not None:
            return entry.sha256 == digest.sha256
        return entry.size == digest.size and entry.blob_id == self._blob_id(path)

    def _check_standing(self, tree: Mapping[str, Entry]) -> None:
        wrong, strangers = self._compare(tree)
        if self._last in wrong and self._last in tree:
            raise StoreError(
                f"{self._uri}/{self._last}: it stands there with other content, so another run has released this "
                "version; run again: that release will be found"
            )
        if wrong or strangers:
            raise StoreError(
                f"{self._uri}: tag {self._tag} stands on other files than these: {', '.join([*wrong, *strangers])}; a "
                f"tag never moves: delete it and branch {self._branch} on the Hub, then run again"
            )

    def _commit(self, head: str, wrong: Sequence[str], strangers: Sequence[str]) -> str:
        additions = [self._addition(path) for path in wrong]
        large = [addition for addition in additions if isinstance(addition.path_or_fileobj, str)]
        try:
            self._repo.preupload(self._branch, additions)
            for addition in large:
                self._check_source(addition.path_in_repo, addition.upload_info.sha256.hex(), addition.upload_info.size)
            operations = [*additions, *map(CommitOperationDelete, strangers)]
            return self._repo.commit(self._branch, operations, f"Release {self._version}", parent=head)
        except TransientStoreError:
            raise
        except StoreError:
            # The Hub refuses bytes that do not hash to what was promised; if it was that, say whose fault it is.
            for addition in large:
                self._read(addition.path_in_repo)
            raise

    def _addition(self, path: str) -> CommitOperationAdd:
        """The client's operation for a file, made once: what it learns of an upload outlives a lost connection."""
        if path not in self._additions:
            content = self._contents[path]
            if isinstance(content.at_hand, bytes) or content.digest.size <= _LARGEST_IN_MEMORY_BYTES:
                addition = CommitOperationAdd(path, self._read_whole(path))
            else:
                addition = self._large_addition(path, content.at_hand, content.digest)
            self._additions[path] = addition
        return self._additions[path]

    def _large_addition(self, path: str, source: Path, digest: FileDigest) -> CommitOperationAdd:
        addition = CommitOperationAdd(path, source)
        if addition.upload_info.size != digest.size:
            self._read(path)
        # By plain LFS the Hub itself proves the bytes against the digest that it is given, so ours saves hashing again.
        # Xet hashes them on their way in any case; then they are compared afterwards.
        if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
            addition.upload_info.sha256 = bytes.fromhex(digest.sha256)
        return addition

    def _read_whole(self, path: str) -> bytes:
        source = self._contents[path].at_hand
        data = source if isinstance(source, bytes) else source.read_bytes()
        found = hash_bytes(data)
        self._check_source(path, found.sha256, found.size)
        return data

    def _blob_id(self, path: str) -> str:
        """What git names the content by, of bytes that are proved to be the right ones."""
        if path not in self._blob_ids:
            self._blob_ids[path] = self._read(path)
        return self._blob_ids[path]

    def _read(self, path: str) -> str:
        """Read a source to its end and return git's name of it; StoreError if it is not what it was."""
        content = self._contents[path]
        git, sha256, size = hashlib.sha1(b"blob %d\0" % content.digest.size), hashlib.sha256(), 0
        if isinstance(content.at_hand, bytes):
            git.update(content.at_hand)
            return git.hexdigest()
        with content.at_hand.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                git.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
        self._check_source(path, sha256.hexdigest(), size)
        return git.hexdigest()

    def _check_source(self, path: str, sha256: str, size: int) -> None:
        content = self._contents[path]
        expected = content.digest
        if (sha256, size) != (expected.sha256, expected.size):
            origin = "memory" if isinstance(content.at_hand, bytes) else content.at_hand
            raise StoreError(
                f"{self._uri}/{path}: expected sha256 {expected.sha256} ({expected.size} bytes), found {sha256} "
                f"({size} bytes) in {origin}; it changed while it was released, or the disk is faulty"
            )
