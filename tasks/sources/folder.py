"""A folder of this machine as a source: files are read where they lie."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tasks.errors import NotFoundError
from tasks.sources.source import RemoteFile, Report, find_file


class FolderSource:
    """A folder; a file given in its place is a source of that one file."""

    def __init__(self, path: Path):
        self._path = path.absolute()

    @property
    def uri(self) -> str:
        """`file:///...`."""
        return self._path.as_uri()

    @property
    def revision(self) -> str:
        """Empty: what a folder holds is known by its content only."""
        return ""

    def list_files(self) -> Mapping[str, RemoteFile]:
        """Every file by its path, sorted; dotted files and folders are left out.

        Raises:
            NotFoundError: there is no such folder.
        """
        return self._files

    def describe(self, path: str) -> RemoteFile:
        """One file; nothing more is known than its size."""
        return find_file(self._files, path, self.uri)

    def find_copy(self, path: str) -> Path | None:
        """None: the file itself is here."""
        return None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of a file; fewer only at its end."""
        with self._locate(path).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def download(self, path: str, folder: Path, report: Report) -> Path:
        """Where the file lies; nothing is copied into `folder`."""
        found = self._locate(path)
        report(found.stat().st_size)
        return found

    @cached_property
    def _files(self) -> dict[str, RemoteFile]:
        if self._path.is_file():
            return {self._path.name: RemoteFile(self._path.stat().st_size, "")}
        if not self._path.is_dir():
            raise NotFoundError(f"{self._path}: there is no such folder or file; look at the path's spelling")
        paths = {path.relative_to(self._path): path for path in self._path.rglob("*") if path.is_file()}
        names = {path.as_posix(): path for path in paths if not any(part.startswith(".") for part in path.parts)}
        return {name: RemoteFile(paths[names[name]].stat().st_size, "") for name in sorted(names)}

    def _locate(self, path: str) -> Path:
        """The file at `path`; NotFoundError if it is not in the list, or is gone since."""
        find_file(self._files, path, self.uri)
        found = self._path if self._path.is_file() else self._path / path
        if not found.is_file():
            raise NotFoundError(
                f"{found}: the file was here a moment ago and is gone; it may have been moved or deleted"
            )
        return found
