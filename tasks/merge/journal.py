"""Which files of a merged model are whole: noted one by one, and proven before they are used again.

A draft holds the folder `model`, which becomes the output, and `journal.jsonl`: a first line with the key of the
merge, then one line for every weight file, written once the file is on the disk itself. So a line says what was true
when it was written; a disk may forget or damage it afterwards, and a line may be torn.
"""

import json
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.digests import hash_file
from tasks.merge.layout import OutputFile
from tasks.merge.stream import count_threads
from tasks.records import FileDigest
from tasks.staging import remove, sync, write_file

logger = logging.getLogger(__name__)

_JOURNAL_FILE = "journal.jsonl"
_MODEL_FOLDER = "model"


class Journal:
    """The journal of one model; `journaled` opens that of a draft."""

    def __init__(self, folder: Path, file: Path | None = None, key: str = ""):
        """Nothing is finished before `resume`.

        Args:
            folder: Of the model.
            file: Where it is noted what is whole; None for a folder that nobody will go on with.
            key: Of the merge.
        """
        self.folder = folder
        self.finished: dict[str, FileDigest] = {}
        """Path inside the folder to content, of the weight files that are whole."""
        self._file = file
        self._key = key

    def add(self, path: str, digest: FileDigest) -> None:
        """Bring a whole file to disk and note it. Not for several threads at once."""
        sync(self.folder / path)
        if self._file is not None:
            with self._file.open("ab") as file:
                file.write(_line(path, digest))
                file.flush()
                os.fsync(file.fileno())
        self.finished[path] = digest

    def resume(self, files: Sequence[OutputFile]) -> None:
        """Find out what an earlier writer has finished; all else that it left is removed.

        Args:
            files: What the merge is to write. A file of another size or with another header is none of them.
        """
        expected = {file.path: file for file in files}
        noted = self._read()
        fitting = {
            path: digest
            for path, digest in noted.items()
            if path in expected and _begins_as(self.folder / path, expected[path])
        }
        self.finished = find_unchanged(self.folder, fitting)
        for path in sorted(noted.keys() - self.finished):
            logger.warning("%s: not what was written there before the merge was stopped; merged again", path)
        self.folder.mkdir(exist_ok=True)
        self.drop_unfinished()
        if self._file is not None:
            # Anew, so that nothing is appended to a line that was torn.
            fresh = self._file.with_suffix(".fresh")
            write_file(fresh, b"".join([self._first_line(), *(_line(*entry) for entry in self.finished.items())]))
            fresh.replace(self._file)

    def drop_unfinished(self) -> None:
        """Remove all but whole weight files; also the journal, if there is none."""
        for path in self.folder.rglob("*"):
            if not path.is_dir() and path.relative_to(self.folder).as_posix() not in self.finished:
                path.unlink()
        if not self.finished:
            remove(self.folder)
            self.folder.mkdir()
            if self._file is not None:
                remove(self._file)

    def _first_line(self) -> bytes:
        return json.dumps({"key": self._key}).encode() + b"\n"

    def _read(self) -> dict[str, FileDigest]:
        """What was noted, up to the first line that is not whole; nothing if the journal is of another key."""
        if self._file is None or not self._file.is_file():
            return {}
        lines = self._file.read_bytes().splitlines(keepends=True)
        if not lines or lines[0] != self._first_line():
            return {}
        noted: dict[str, FileDigest] = {}
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                noted[str(entry["path"])] = FileDigest(str(entry["sha256"]), int(entry["size"]))
            except (ValueError, KeyError, TypeError):
                break
        return noted


@contextmanager
def journaled(draft: Path, key: str, files: Sequence[OutputFile]) -> Generator[Journal]:
    """The journal of a draft; an error leaves what is finished there, and nothing else.

    Args:
        draft: A folder that nobody else works in, perhaps with what an earlier writer left.
        key: Of the merge; what was written under another key is not used.
        files: The weight files to be written.
    """
    journal = Journal(draft / _MODEL_FOLDER, draft / _JOURNAL_FILE, key)
    journal.resume(files)
    try:
        yield journal
    except BaseException:
        # Whatever goes wrong here too, the error to tell is the first one.
        with suppress(OSError):
            journal.drop_unfinished()
            if not journal.finished:
                remove(journal.folder)
        raise


def find_unchanged(folder: Path, files: Mapping[str, FileDigest]) -> dict[str, FileDigest]:
    """Those of the files whose content is still what it was, hashed by several threads."""

    def is_unchanged(path: str) -> bool:
        file = folder / path
        # The size first: what was cut short need not be read.
        return file.is_file() and file.stat().st_size == files[path].size and hash_file(file) == files[path]

    with ThreadPoolExecutor(count_threads(), thread_name_prefix="verify") as pool:
        unchanged = list(pool.map(is_unchanged, files))
    return {path: digest for (path, digest), is_same in zip(files.items(), unchanged, strict=True) if is_same}


def _begins_as(file: Path, expected: OutputFile) -> bool:
    if not file.is_file() or file.stat().st_size != expected.size:
        return False
    with file.open("rb") as stream:
        return stream.read(len(expected.header)) == expected.header


def _line(path: str, digest: FileDigest) -> bytes:
    return json.dumps({"path": path, "size": digest.size, "sha256": digest.sha256}).encode() + b"\n"
