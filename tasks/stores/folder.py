"""Releases in a folder: local disk or a shared file system with rename and flock."""

import errno
import fcntl
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tasks.digests import hash_file
from tasks.errors import AliasConflictError, NotFoundError, StoreError
from tasks.records import FileDigest
from tasks.staging import check_space, commit, existing_folder, locked, staged, write_file, writing
from tasks.stores.store import Content, content_of


class FolderStore:
    """A store on the file system of this machine."""

    def __init__(self, root: Path):
        self.root = root.absolute()

    @property
    def destination(self) -> str:
        """The absolute path."""
        return str(self.root)

    def uri(self, path: str) -> str:
        """A `file://` URI."""
        return self._locate(path).as_uri()

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        return self._locate(path).exists()

    def list_names(self, path: str) -> list[str]:
        """Names directly under a folder, without drafts and locks, sorted; empty if there is no such folder."""
        with _readable(folder := self._locate(path)):
            if not folder.is_dir():
                return []
            return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))

    def list_files(self, path: str) -> dict[str, int]:
        """Every file under a folder to its size in bytes; dotted ones too, since they do not belong there."""
        with _readable(folder := self._locate(path)):
            found = sorted(file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
            return {file.relative_to(folder).as_posix(): file.lstat().st_size for file in found}

    def read_bytes(self, path: str) -> bytes:
        """A small file; NotFoundError if there is none."""
        with _readable(file := self._locate(path)):
            return file.read_bytes()

    def pointer_problems(self, path: str, points_at: str) -> list[str]:
        """None: readers find the files of `points_at` themselves."""
        return []

    def compute_digest(self, path: str) -> FileDigest:
        """Hash the bytes that are stored now; NotFoundError if there is no such file."""
        with _readable(file := self._locate(path)):
            return hash_file(file)

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether the bytes that are stored now hash to this."""
        file = self._locate(path)
        return file.is_file() and file.stat().st_size == digest.size and self.compute_digest(path) == digest

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a small file whole, by one rename."""
        with writing(goal := self._locate(path)):
            _replace(goal, content_of(data))

    def compare_and_swap(self, path: str, expected: bytes | None, new: bytes, points_at: str) -> None:
        """Replace `expected` by `new`; a lock file beside it keeps other writers out meanwhile.

        Readers find the folder behind `points_at` themselves, so nothing is done with it.

        Raises:
            AliasConflictError: the file holds something else.
        """
        with writing(goal := self._locate(path)):
            goal.parent.mkdir(parents=True, exist_ok=True)
            with locked(goal.with_name(f".{goal.name}.lock")):
                current = goal.read_bytes() if goal.exists() else None
                if current != expected:
                    raise AliasConflictError(
                        f"{goal}: another run changed it after this one had read it, and that run stands; look at "
                        "what is live now, then run this one again"
                    )
                _replace(goal, content_of(new))

    def upload(self, path: str, contents: Mapping[str, Content], last: str) -> None:
        """Store a folder whole; see `Store.upload`. A new folder appears with one rename."""
        ordered = {name: contents[name] for name in sorted(contents, key=lambda name: (name == last, name))}
        for name in ordered:
            self._locate(name)
        with writing(goal := self._locate(path)):
            if goal.exists() or not self._create(goal, ordered):
                _complete(goal, ordered, last)

    def delete_tree(self, path: str) -> None:
        """Rename a folder out of sight, then remove it."""
        with writing(folder := self._locate(path)):
            if folder.exists():
                with staged(folder) as draft:
                    folder.rename(draft)

    def delete_file(self, path: str) -> None:
        """Remove a small file."""
        with writing(goal := self._locate(path)):
            goal.unlink(missing_ok=True)

    def check_writable(self, path: str = "") -> None:
        """Write and lock a file where the folder is or will be; leaves nothing behind.

        Raises:
            StoreError: there is a file in the place of a folder, no right to write, or no locks.
        """
        goal = self._locate(path)
        with writing(goal), tempfile.TemporaryFile(dir=existing_folder(goal)) as probe:
            probe.write(b"probe")
            probe.flush()
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free_bytes(self) -> int | None:
        """Bytes that this user can still write there."""
        return shutil.disk_usage(existing_folder(self.root)).free

    def _create(self, goal: Path, contents: Mapping[str, Content]) -> bool:
        """Make the folder under a draft name and rename it; False if another run was first."""
        check_space(goal, sum(content.digest.size for content in contents.values()))
        with staged(goal) as draft:
            draft.mkdir()
            for name, content in contents.items():
                write_verified(draft / name, content)
            try:
                commit(draft, goal)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
        return True

    def _locate(self, path: str) -> Path:
        # Paths come from recipes, manifests and the command line; none may lead out of the store.
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise StoreError(f"{path!r} leads out of {self.root}; a path inside a store is relative, without '..'")
        return self.root / path


def _complete(goal: Path, contents: Mapping[str, Content], last: str) -> None:
    """Write what a standing folder lacks or holds damaged, file by file, `last` at the end."""
    if (goal / last).exists() and hash_file(goal / last) != contents[last].digest:
        raise StoreError(
            f"{goal / last}: it stands there with other content, so another run has released this version; "
            "run again: that release will be found"
        )
    for name, content in contents.items():
        file = goal / name
        if not file.is_file() or hash_file(file) != content.digest:
            # The draft lies beside the folder, not in it: whoever verifies the folder meanwhile sees no extra file.
            with staged(goal) as draft:
                write_verified(draft, content)
                file.parent.mkdir(parents=True, exist_ok=True)
                commit(draft, file)


def _replace(goal: Path, content: Content) -> None:
    """Write one file whole, in place of the one that stands there."""
    with staged(goal) as draft:
        write_verified(draft, content)
        commit(draft, goal)


def write_verified(goal: Path, content: Content) -> None:
    """Write one file and prove it.

    Raises:
        StoreError: the bytes on the disk do not have the expected digest.
    """
    if (found := write_file(goal, content.at_hand)) != content.digest:
        origin = "memory" if isinstance(content.source, bytes) else content.source
        raise StoreError(
            f"{goal}: expected sha256 {content.digest.sha256} ({content.digest.size} bytes), found {found.sha256} "
            f"({found.size} bytes) after copying from {origin}; it changed while it was released, or the disk is faulty"
        )


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Say what could not be read, in the project's errors."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
