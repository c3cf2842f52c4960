"""Repositories of the Hub stand-in: blobs, commits, branches, tags. All in memory, all ids as git computes them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from itertools import count

LFS_PATTERNS = tuple(
    f"*.{name}"
    for name in "safetensors bin pt pth ckpt onnx model h5 msgpack npy npz parquet pickle pkl gz zip".split()
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


class HubError(Exception):
    """What the stand-in answers instead of a result.

    Args:
        status: HTTP status.
        message: Goes into the body and X-Error-Message.
        code: X-Error-Code, from which the client picks the type of its exception.
        commit: X-Repo-Commit, for answers about one commit.
    """

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


def git_id(kind: str, content: bytes) -> str:
    """Name `content` as git does: sha1 of its kind, length and bytes."""
    return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(content), content)).hexdigest()


@dataclass(frozen=True)
class Blob:
    """Content of a file; for an LFS file git holds a pointer, which is what `oid` names."""

    content: bytes = field(repr=False)
    is_lfs: bool

    @cached_property
    def sha256(self) -> str:
        """Sha256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The text that git holds in place of an LFS file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @cached_property
    def oid(self) -> str:
        """Git's id: of the content, or of the pointer for an LFS file."""
        return git_id("blob", self.pointer if self.is_lfs else self.content)

    @property
    def etag(self) -> str:
        """What the Hub gives as ETag: sha256 for an LFS file, git's id for others."""
        return self.sha256 if self.is_lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one moment."""

    oid: str
    parent: "Commit | None"
    message: str
    description: str
    date: str
    files: Mapping[str, Blob]

    def history(self) -> "Iterator[Commit]":
        """This commit, its parent, and so on to the first."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent


def tree_id(files: Mapping[str, Blob]) -> str:
    """Git's id of a folder with these files."""
    folders: dict[str, dict[str, Blob]] = {}
    entries: list[tuple[str, bytes, str]] = []
    for path, blob in files.items():
        name, _, rest = path.partition("/")
        if rest:
            folders.setdefault(name, {})[rest] = blob
        else:
            entries.append((name, b"100644 ", blob.oid))
    # Git sorts a folder as if its name ended in a slash.
    entries += [(f"{name}/", b"40000 ", tree_id(content)) for name, content in folders.items()]
    lines = [mode + name.rstrip("/").encode() + b"\0" + bytes.fromhex(oid) for name, mode, oid in sorted(entries)]
    return git_id("tree", b"".join(lines))


def check_path(path: str) -> None:
    """Refuse a path that git or the Hub would not take."""
    parts = path.split("/")
    if not all(parts) or {".", "..", ".git"} & set(parts):
        raise HubError(400, f"Invalid path {path!r}")


class Repo:
    """One repository; begins with a commit that holds .gitattributes only, as on the Hub.

    Attributes:
        branches, tags: Name to commit.
        objects: LFS content that was uploaded to this repository, by sha256.
        granted: Tokens that may read the files of a gated repository.
        lfs_threshold: Files of more bytes than this are LFS whatever their name is.
    """

    _numbers = count()

    def __init__(self, repo_id: str, repo_type: str, *, private: bool, gated: bool, lfs_threshold: int) -> None:
        self.id, self.type, self.private, self.gated = repo_id, repo_type, private, gated
        self.lfs_threshold = lfs_threshold
        self.objects: dict[str, bytes] = {}
        self.granted: set[str] = set()
        self.commits: dict[str, Commit] = {}
        self.tags: dict[str, Commit] = {}
        first = self._add(None, "initial commit", "", {".gitattributes": Blob(GITATTRIBUTES, is_lfs=False)})
        self.branches: dict[str, Commit] = {"main": first}

    def is_lfs(self, path: str, size: int) -> bool:
        """Whether a file of this name and size has to be uploaded as LFS; an empty file never is."""
        named = any(fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in LFS_PATTERNS)
        return size > 0 and (named or size > self.lfs_threshold)

    def find(self, revision: str) -> Commit:
        """The commit of a branch, tag or full commit id."""
        name = revision.removeprefix("refs/heads/")
        commit = (
            self.branches.get(name) or self.tags.get(revision.removeprefix("refs/tags/")) or self.commits.get(revision)
        )
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def branch_head(self, branch: str) -> Commit:
        """The last commit of a branch; tags and commits are no place to commit to."""
        if branch not in self.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        return self.branches[branch]

    def blob(self, path: str, content: bytes) -> Blob:
        """Content as it is stored under `path`: an LFS object where the rules say so."""
        blob = Blob(content, self.is_lfs(path, len(content)))
        if blob.is_lfs:
            self.objects[blob.sha256] = content
        return blob

    def commit(
        self,
        branch: str,
        changes: Iterable[tuple[str, Blob | None]],
        message: str,
        description: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Add a commit to a branch.

        Args:
            branch: Its head moves to the new commit.
            changes: Path and new content, or None to delete; a deleted path that ends in a slash is a folder.
            message: Title.
            description: What follows it.
            parent: The head that the author saw; any other head refuses the commit.
        """
        head = self.branch_head(branch)
        if parent is not None and parent != head.oid:
            raise HubError(412, f"{branch} is at {head.oid}, not at the given parent commit {parent}")
        files = dict(head.files)
        for path, blob in changes:
            check_path(path.removesuffix("/"))
            if blob is not None:
                files[path] = blob
                continue
            gone = [name for name in files if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                raise HubError(404, f"Cannot delete {path!r}: no such file or folder", "EntryNotFound")
            for name in gone:
                del files[name]
        self.branches[branch] = self._add(head, message, description, files)
        return self.branches[branch]

    def _add(self, parent: Commit | None, message: str, description: str, files: dict[str, Blob]) -> Commit:
        date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # The number keeps apart equal commits of one millisecond, which git would give one id.
        lines = [f"tree {tree_id(files)}", f"parent {parent.oid if parent else ''}", f"number {next(self._numbers)}"]
        oid = git_id("commit", "\n".join([*lines, date, "", message, description]).encode())
        self.commits[oid] = Commit(oid, parent, message, description, date, dict(sorted(files.items())))
        return self.commits[oid]
