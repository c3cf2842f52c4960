"""One repository of the Hub: its branches and tags, what a commit holds, and new commits.

Nothing here is tried again: whoever calls does that, from a fresh look at the branches on, so that a lost answer is
seen as the change that it made. What a commit holds is remembered for a while, since commits never change.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    get_session,
    hf_hub_url,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.records import FileDigest
from tasks.remote.hub import ANSWER_SECONDS, status_of
from tasks.remote.retries import with_retries
from tasks.stores.hub.content import Recent, find_identity, identities
from tasks.stores.hub.faults import repo_errors
from tasks.stores.progress import UploadProgress

CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

MAIN = "main"
GIT_ATTRIBUTES = ".gitattributes"
UPLOAD_THREADS = 4

_REMEMBERED_TREES = 64
_REMEMBERED_FILES = 256
_LARGEST_REMEMBERED_BYTES = 2**18
# How often the client itself asks for trees, upload modes and LFS uploads, over 23 s: nobody has to do it again.
_CLIENT_ATTEMPTS = 6


class Refs(NamedTuple):
    """Name to commit."""

    branches: dict[str, str]
    tags: dict[str, str]


class Entry(NamedTuple):
    """A file of a commit."""

    size: int
    blob_id: str
    """Git's sha1, of the content or, for an LFS file, of its pointer."""
    sha256: str | None
    """Of the content; only LFS files have it."""


class HubRepo:
    """A model repository. Methods raise StoreError; faults that may pass, and lost races, are TransientStoreError."""

    def __init__(self, api: HfApi, repo_id: str):
        self.repo_id = repo_id
        self.url = f"{api.endpoint}/{repo_id}"
        self._api: Any = api
        self._trees: Recent[dict[str, Entry]] = Recent(_REMEMBERED_TREES)
        self._files: Recent[bytes] = Recent(_REMEMBERED_FILES)

    def refs(self) -> Refs | None:
        """All branches and tags now; None if there is no such repository."""
        try:
            with self._errors():
                found = self._api.list_repo_refs(self.repo_id)
        except NotFoundError:
            return None
        branches = {ref.name: ref.target_commit for ref in found.branches}
        return Refs(branches, {ref.name: ref.target_commit for ref in found.tags})

    def tree(self, commit: str) -> dict[str, Entry]:
        """Path to entry of all files of a commit but the Hub's own `.gitattributes`, sorted."""
        if (known := self._trees.get(commit)) is not None:
            return known
        with self._errors(attempts=_CLIENT_ATTEMPTS):
            files = [
                file
                for file in self._api.list_repo_tree(self.repo_id, recursive=True, revision=commit)
                if isinstance(file, RepoFile) and file.path != GIT_ATTRIBUTES
            ]
        found = {
            file.path: Entry(file.size, file.blob_id, file.lfs.sha256 if file.lfs else None)
            for file in sorted(files, key=lambda file: file.path)
        }
        return self._trees.put(commit, found)

    def read(self, commit: str, path: str) -> bytes:
        """A small file, verified; NotFoundError if the commit does not hold it."""
        if (known := self._files.get(f"{commit}/{path}")) is not None:
            return known
        with self._errors(path):
            response = get_session().get(self._link(commit, path), headers=self._headers(), timeout=ANSWER_SECONDS)
            hf_raise_for_status(response)
        data = response.content
        expected = find_identity(answer.headers for answer in (*response.history, response))
        if expected is not None and expected not in identities(data):
            raise TransientStoreError(
                f"{self.url}/{path}: expected content {expected}, found {' or '.join(identities(data))}; the bytes "
                "were damaged on their way"
            )
        return self._files.put(f"{commit}/{path}", data) if len(data) <= _LARGEST_REMEMBERED_BYTES else data

    def find(self, commit: str, path: str) -> bytes | None:
        """A small file; None if the commit does not hold it."""
        try:
            return self.read(commit, path)
        except NotFoundError:
            return None

    def digest(self, commit: str, path: str) -> FileDigest:
        """Read all bytes of a file and hash them; a broken connection is taken up where it broke off."""
        hashing, size = hashlib.sha256(), 0

        def go_on() -> None:
            nonlocal hashing, size
            # A compressed answer has no ranges that could be gone on from.
            headers = {**self._headers(), "Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={size}-"} if size else {}
            link = self._link(commit, path)
            with (
                self._errors(path),
                get_session().stream("GET", link, headers=headers, timeout=ANSWER_SECONDS) as response,
            ):
                if response.is_error:
                    response.read()
                hf_raise_for_status(response)
                if response.status_code != 206:
                    hashing, size = hashlib.sha256(), 0
                for chunk in response.iter_bytes():
                    hashing.update(chunk)
                    size += len(chunk)

        with_retries(go_on, f"{self.url}/{path}")
        return FileDigest(hashing.hexdigest(), size)

    def create(self) -> None:
        """Make the repository, private; whoever owns it may publish it. One that is there stays as it is."""
        with self._errors():
            self._api.create_repo(self.repo_id, private=True, exist_ok=True)

    def create_branch(self, branch: str, commit: str) -> None:
        """Begin a branch at a commit."""
        with self._errors():
            self._api.create_branch(self.repo_id, branch=branch, revision=commit)

    def create_tag(self, tag: str, commit: str) -> None:
        """Name a commit for ever."""
        with self._errors():
            self._api.create_tag(self.repo_id, tag=tag, revision=commit)

    def delete_branch(self, branch: str) -> None:
        """Remove a branch; nothing happens if there is none."""
        self._delete(lambda: self._api.delete_branch(self.repo_id, branch=branch))

    def delete_tag(self, tag: str) -> None:
        """Remove a tag; nothing happens if there is none."""
        self._delete(lambda: self._api.delete_tag(self.repo_id, tag=tag))

    def preupload(self, branch: str, additions: Sequence[CommitOperationAdd]) -> None:
        """Bring the content of LFS files to the Hub; what it has already is not sent.

        A few at a time, in parallel: a kill loses what is on its way at that moment, never what has arrived.
        """
        progress = UploadProgress(self.url, sum(addition.upload_info.size for addition in additions))
        for start in range(0, len(additions), UPLOAD_THREADS):
            group = additions[start : start + UPLOAD_THREADS]
            with self._errors(attempts=_CLIENT_ATTEMPTS):
                self._api.preupload_lfs_files(
                    self.repo_id,
                    group,
                    revision=branch,
                    num_threads=UPLOAD_THREADS,
                    free_memory=False,
                )
            progress.add(sum(addition.upload_info.size for addition in group))

    def commit(self, branch: str, operations: Iterable[CommitOperation], message: str, parent: str | None) -> str:
        """Add one commit to a branch and return its id.

        Args:
            branch: Where.
            operations: What changes; the client leaves out what is so already, and makes no empty commit.
            message: Title.
            parent: The head that was seen; TransientStoreError if the branch is elsewhere. None: any.
        """
        operations = list(operations)
        self.preupload(branch, [operation for operation in operations if isinstance(operation, CommitOperationAdd)])
        with self._errors():
            done = self._api.create_commit(
                self.repo_id, operations, commit_message=message, revision=branch, parent_commit=parent
            )
        return done.oid

    def _delete(self, call: Callable[[], None]) -> None:
        try:
            with self._errors():
                call()
        except StoreError as error:
            if status_of(error) != 404:
                raise

    def _link(self, commit: str, path: str) -> str:
        return hf_hub_url(self.repo_id, path, revision=commit, endpoint=self._api.endpoint)

    def _headers(self) -> dict[str, str]:
        return build_hf_headers(token=self._api.token, library_name=self._api.library_name)

    def _errors(self, path: str = "", attempts: int = 1) -> AbstractContextManager[None]:
        return repo_errors(f"{self.url}/{path}" if path else self.url, attempts)
