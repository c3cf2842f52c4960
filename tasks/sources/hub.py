"""A repository of the Hub at one commit, resolved once and for all.

Files are asked for by commit, so a branch that moves meanwhile changes nothing. The bytes come by plain HTTP in the
client's own session: its `hf_hub_download` throws away what it has when a process ends, and never looks at the content.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tasks.errors import NotFoundError
from tasks.remote.hub import ANSWER_SECONDS, DEFAULT_REVISION, call_hub, hub_api, hub_errors
from tasks.sources.source import RemoteFile, Report, find_file
from tasks.sources.transfer import CHUNK_BYTES, append_download, read_bytes

RepoType = Literal["model", "dataset"]

_CONNECT_SECONDS = 10
_READ_SECONDS = 60


class HubSource:
    """A repository, or a folder in it, at the commit that its revision meant when this was made."""

    def __init__(self, repo_id: str, repo_type: RepoType = "model", revision: str | None = None, folder: str = ""):
        """Ask the Hub what the revision means now, and for the list of files.

        Args:
            repo_id: `org/name`.
            repo_type: `model` or `dataset`.
            revision: Branch, tag or commit; None: `main`.
            folder: Folder inside the repository that the source is limited to, or one file; empty: all of it.

        Raises:
            NotFoundError: there is no such repository or revision, or it may not be seen.
            TransientStoreError: the Hub cannot be reached, after all attempts.
        """
        self.repo_id, self.repo_type, self.folder = repo_id, repo_type, folder.strip("/")
        self._api = hub_api()
        asked = revision or DEFAULT_REVISION
        ask = self._api.model_info if repo_type == "model" else self._api.dataset_info
        page = self._page(f"@{asked}")
        self._info: Any = call_hub(
            lambda: ask(repo_id, revision=asked, files_metadata=True, timeout=ANSWER_SECONDS), page
        )
        if self.folder and not self._files:
            raise NotFoundError(f"{page}: there is no folder or file {self.folder!r} in this repository")

    @property
    def uri(self) -> str:
        """`hub://org/name[/folder]@<commit>`."""
        return f"hub://{'/'.join(filter(None, (self.repo_id, self.folder)))}@{self.revision}"

    @property
    def revision(self) -> str:
        """The commit: 40 hex digits."""
        return str(self._info.sha)

    @property
    def licence(self) -> str | None:
        """As the repository's card states it; None if it states none."""
        licence = self._info.card_data.get("license") if self._info.card_data else None
        # A card may list several; there is no telling which holds for what.
        return ", ".join(map(str, licence)) if isinstance(licence, list) else licence and str(licence)

    def list_files(self) -> Mapping[str, RemoteFile]:
        """Every file by its path, sorted; asked for when this was made."""
        return self._files

    def describe(self, path: str) -> RemoteFile:
        """One file; the list says everything already."""
        return find_file(self._files, path, self.uri)

    def find_copy(self, path: str) -> Path | None:
        """The file in the user's Hugging Face cache, if it was kept there at this very commit."""
        found = try_to_load_from_cache(
            self.repo_id, self._path_in_repo(path), revision=self.revision, repo_type=self.repo_type
        )
        return Path(found) if isinstance(found, str) else None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of a file; fewer only at its end. Errors as `Source.read_range`."""
        size = self.describe(path).size
        return read_bytes(start, min(start + length, size), self._opener(path), self._where(path))

    def download(self, path: str, folder: Path, report: Report) -> Path:
        """Bring one file whole into `folder`; errors and use of earlier attempts as `Source.download`."""
        size = self.describe(path).size
        return append_download(folder / "part", size, self._opener(path), self._where(path), report)

    @cached_property
    def _files(self) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        for entry in sorted(self._info.siblings or (), key=lambda entry: entry.rfilename):
            path = self._path_in_source(entry.rfilename)
            if path is None:
                continue
            if entry.lfs is not None:
                found[path] = RemoteFile(entry.lfs.size, f"sha256:{entry.lfs.sha256}", entry.lfs.sha256)
            else:
                found[path] = RemoteFile(entry.size, f"git:{entry.blob_id}", checksum=f"git:{entry.blob_id}")
        return found

    def _path_in_source(self, path: str) -> str | None:
        """A path of the repository as this source names it; None if it lies outside of its folder."""
        if path == self.folder:
            return path.rpartition("/")[2]
        prefix = f"{self.folder}/" if self.folder else ""
        return path.removeprefix(prefix) if path.startswith(prefix) else None

    def _path_in_repo(self, path: str) -> str:
        return self.folder if self._is_one_file else "/".join(filter(None, (self.folder, path)))

    @cached_property
    def _is_one_file(self) -> bool:
        return any(entry.rfilename == self.folder for entry in self._info.siblings or ())

    def _opener(self, path: str) -> Any:
        where, url = self._where(path), self._url(path)

        @contextmanager
        def open_stream(start: int, stop: int) -> Generator[tuple[int, Iterator[bytes]]]:
            # Text files would be compressed on the way, and ranges are of the compressed bytes then.
            headers = build_hf_headers(token=self._api.token, library_name=self._api.library_name)
            headers["Accept-Encoding"] = "identity"
            headers["Range"] = f"bytes={start}-{stop - 1}"
            client: Any = get_session()
            timeout = (_CONNECT_SECONDS, _READ_SECONDS, _READ_SECONDS, _READ_SECONDS)
            with hub_errors(where), client.stream("GET", url, headers=headers, timeout=timeout) as response:
                hf_raise_for_status(response)
                yield start if response.status_code == 206 else 0, response.iter_bytes(CHUNK_BYTES)

        return open_stream

    def _url(self, path: str) -> str:
        return hf_hub_url(
            self.repo_id, self._path_in_repo(path), repo_type=self.repo_type, revision=self.revision,
            endpoint=self._api.endpoint,
        )  # fmt: skip

    def _where(self, path: str) -> str:
        return self._page(f"/{self._path_in_repo(path)}@{self.revision[:12]}")

    def _page(self, rest: str) -> str:
        kind = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self._api.endpoint}/{kind}{self.repo_id}{rest}"
