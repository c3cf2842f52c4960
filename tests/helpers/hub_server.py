"""A stand-in of the Hugging Face Hub on loopback, for the real clients.

huggingface_hub, transformers and sentence-transformers work against it. Set HF_HUB_DISABLE_XET=1 before
huggingface_hub is imported; otherwise its uploads look for a Xet server, which is not here.

    with HubServer() as hub:
        hub.create_repo("org/base")
        sha = hub.commit("org/base", {"config.json": b"{}"})
        HfApi(endpoint=hub.endpoint, token=hub.token).model_info("org/base")

Not here: spaces, pull requests, Xet, settings, squashing, .gitignore at upload, last commits in trees, short commit
ids, repositories without a namespace.
"""

import secrets
import threading
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from hub_faults import Fault, Faults
from hub_http import Listener
from hub_repos import HubError, Repo
from hub_routes import NAMES
from hub_service import serve
from hub_write import MultipartUpload


class Request(NamedTuple):
    """A line of the log. `path` is without query and quoting; `status` is 0 if the connection was reset instead."""

    method: str
    route: str
    path: str
    status: int


class HubServer:
    """The stand-in. Start it with `with`; one server serves any number of tests, with `clear` between them.

    Attributes:
        token, read_token: A token that may write everywhere, and one that may only read.
        endpoint: What clients are given; LFS objects live on `storage`, the same port under another host name.
        requests: Log of all requests.
        lfs_threshold: Files of more bytes than this are LFS whatever their name is; for repositories made later.
        multipart_size: Larger LFS objects are uploaded in parts of this many bytes.
        page_size: Entries in one page of a list.
    """

    user = "tester"

    def __init__(self) -> None:
        self.token, self.read_token = (f"hf_{secrets.token_hex(16)}" for _ in range(2))
        self.lock = threading.RLock()
        self._faults = Faults(NAMES)
        self.requests: list[Request] = []
        self.bugs: list[str] = []
        self.stopping = threading.Event()
        self._listener = Listener(partial(serve, self))
        port = self._listener.server_address[1]
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """End all connections and join all threads; raises if a handler of the stand-in itself failed."""
        self.stopping.set()
        self._listener.stop()
        self._thread.join()
        if self.bugs:
            raise AssertionError("the Hub stand-in failed:\n" + "\n".join(self.bugs))

    def clear(self) -> None:
        """Back to how it began: no repositories, faults or log; tokens and links valid; settings at their defaults."""
        with self.lock:
            self._repos: dict[tuple[str, str], Repo] = {}
            self._uploads: list[MultipartUpload] = []
            self._faults.clear()
            self.requests.clear()
            self._expired = False
            self.expire_links()
            self.lfs_threshold, self.multipart_size, self.page_size = 2**20, 2**23, 1000

    # What a test asks for.

    def fail(
        self,
        route: str,
        kind: str,
        times: int | None = 1,
        *,
        path: str = "",
        method: str | None = None,
        after: int = 0,
        **options: Any,
    ) -> Fault:
        """Let requests of a route fail; the `Fault` that is returned counts them in `seen`.

        Kinds, with their options: `status` (status=503, retry_after seconds, message, code), `expired` (401, as for
        a token that ran out), `reset` (no answer), `truncate` (half of the body), `flip` (one byte of the body wrong),
        `applied_then_lost` (the work is done, then no answer), `delay` (seconds=0.2). On `lfs_put`, `truncate` and
        `flip` are done to what is uploaded.

        Args:
            route: Name of the route, as in `hub_routes`.
            kind: What happens.
            times: To how many requests; None is to all.
            path: Only to requests whose path, without quoting and query, has this part.
            method: Only to requests of this method.
            after: Let this many requests through first.
            options: Of the kind.

        Raises:
            ValueError: There is no such route, kind or option.
        """
        with self.lock:
            return self._faults.add(Fault(route, kind, times, path, method, after, options))

    def count(self, route: str, method: str | None = None) -> int:
        """How many requests of a route came so far."""
        return sum(request.route == route and method in (None, request.method) for request in list(self.requests))

    def expire_tokens(self) -> None:
        """No token is good any more, until `clear`."""
        self._expired = True

    def expire_links(self) -> None:
        """Signed links that were given out so far are no longer good; new ones are."""
        self.signature = secrets.token_hex(16)

    def grant_access(self, repo_id: str, token: str, repo_type: str = "model") -> None:
        """Let a token read the files of a gated repository."""
        self.repo(repo_id, repo_type).granted.add(token)

    # What a test puts there and finds there, without HTTP.

    def create_repo(
        self, repo_id: str, repo_type: str = "model", *, private: bool = False, gated: bool = False
    ) -> Repo:
        """Make a repository. No token may read the files of a gated one before `grant_access`."""
        repo = Repo(repo_id, repo_type, private=private, gated=gated, lfs_threshold=self.lfs_threshold)
        with self.lock:
            return self._repos.setdefault((repo_type, repo_id), repo)

    def delete_repo(self, repo_id: str, repo_type: str = "model") -> None:
        """Delete a repository."""
        del self._repos[repo_type, repo_id]

    def has_repo(self, repo_id: str, repo_type: str = "model") -> bool:
        """Whether there is such a repository."""
        return (repo_type, repo_id) in self._repos

    def all_repos(self) -> list[Repo]:
        """Every repository, by name."""
        return sorted(self._repos.values(), key=lambda repo: repo.id)

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        """A repository, with all that it holds."""
        return self._repos[repo_type, repo_id]

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        branch: str = "main",
        *,
        delete: Collection[str] = (),
        message: str = "Commit of a test",
        repo_type: str = "model",
    ) -> str:
        """Delete files (or folders, with a slash at the end), add others, and return the id of the commit."""
        with self.lock:
            repo = self.repo(repo_id, repo_type)
            added = [(path, repo.blob(path, content)) for path, content in files.items()]
            return repo.commit(branch, [*((path, None) for path in delete), *added], message).oid

    def commit_folder(self, repo_id: str, folder: str | Path, branch: str = "main", **options: Any) -> str:
        """Add all files of a folder; `options` are those of `commit`."""
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return self.commit(repo_id, files, branch, **options)

    def branch(self, repo_id: str, name: str, revision: str = "main", repo_type: str = "model") -> None:
        """Make a branch, or move it."""
        repo = self.repo(repo_id, repo_type)
        repo.branches[name] = repo.find(revision)

    def tag(self, repo_id: str, name: str, revision: str = "main", repo_type: str = "model") -> None:
        """Make a tag, or move it."""
        repo = self.repo(repo_id, repo_type)
        repo.tags[name] = repo.find(revision)

    def head(self, repo_id: str, branch: str = "main", repo_type: str = "model") -> str:
        """Id of the last commit of a branch."""
        return self.repo(repo_id, repo_type).branch_head(branch).oid

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Path to content of all files at a revision, .gitattributes too."""
        blobs = self.repo(repo_id, repo_type).find(revision).files
        return {path: blob.content for path, blob in blobs.items()}

    def refs(self, repo_id: str, repo_type: str = "model") -> dict[str, dict[str, str]]:
        """{"branches": name to commit id, "tags": name to commit id}."""
        repo = self.repo(repo_id, repo_type)
        kinds = {"branches": repo.branches, "tags": repo.tags}
        return {kind: {name: commit.oid for name, commit in named.items()} for kind, named in kinds.items()}

    # What the routes ask for.

    def signed(self, path: str, host: str | None = None) -> str:
        """A link to the storage that needs no token; it is good until `expire_links`."""
        return f"{host or self.storage}{path}?X-Amz-Signature={self.signature}"

    def begin_multipart(self, upload: MultipartUpload) -> int:
        """Keep an upload in parts; its number."""
        self._uploads.append(upload)
        return len(self._uploads) - 1

    def multipart(self, number: str) -> MultipartUpload:
        """An upload in parts."""
        if int(number) >= len(self._uploads):
            raise HubError(404, "NoSuchUpload")
        return self._uploads[int(number)]

    def take_fault(self, route: str, method: str, path: str) -> Fault | None:
        """The fault that hits this request, if any."""
        with self.lock:
            return self._faults.take(route, method, path)

    def log(self, method: str, route: str, path: str, status: int) -> None:
        """Add a line to the log."""
        self.requests.append(Request(method, route, path, status))

    def knows(self, token: str) -> bool:
        """Whether a token is good."""
        return not self._expired and token in (self.token, self.read_token)
