"""A Prefect server on loopback with one work pool and one worker: what a platform team runs, in a folder of a test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 180
POOL = "models"

_PROGRAMS = Path(sys.executable).parent
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# What is done once a minute elsewhere is done at once: a schedule that is due, a trigger that fires.
_EAGER = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
}

Found = TypeVar("Found")


@dataclass(frozen=True)
class Site:
    """The server, and a folder that stands for the machine on which the worker runs."""

    folder: Path
    api: str
    environment: dict[str, str]

    def run_program(self, name: str, *arguments: object) -> str:
        """What a program of this environment prints; `python` among them."""
        command = [str(_PROGRAMS / name), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        """What the server answers to GET."""
        return self._ask("GET", path).raise_for_status().json()

    def post(self, path: str, content: Any) -> Any:
        """What the server answers to POST; None if nothing."""
        answer = self._ask("POST", path, content).raise_for_status()
        return answer.json() if answer.content else None

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> httpx.Response:
        """Ask for a run of `flow/deployment` as the UI does."""
        found = self.get(f"/deployments/name/{deployment}")
        return self._ask("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Its flow runs that are due, the earliest first."""
        found = self.get(f"/deployments/name/{deployment}")
        wanted = {"deployments": {"id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.post("/flow_runs/filter", wanted)

    def state(self, run: str) -> dict[str, Any]:
        """The state of a flow run now."""
        return self.get(f"/flow_runs/{run}")["state"]

    def set_state(self, run: str, kind: str, name: str | None = None) -> None:
        """Ask for a state as the buttons of the UI do."""
        answer = self.post(f"/flow_runs/{run}/set_state", {"state": {"type": kind, "name": name}})
        assert answer["status"] == "ACCEPT", answer

    def end_of(self, run: str) -> dict[str, Any]:
        """Wait for the end of a flow run; its final state."""

        def final_state() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in _FINAL else None

        return wait_for(final_state, f"flow run {run} to end")

    def completed(self, run: str) -> dict[str, Any]:
        """Its final state, which is Completed; otherwise the test fails with what the worker has written."""
        state = self.end_of(run)
        assert state["type"] == "COMPLETED", f"{state['name']}: {state['message']}\n{self.log('worker')}"
        return state

    @property
    def cache(self) -> Path:
        """Where runs keep what they have computed: once scored, a model is scored for all tests."""
        return self.folder / "cache"

    def log(self, name: str) -> str:
        """What a process in the background has written."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """What a run has shown, the earliest first; without the results of tasks, which the server lists, too."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "sort": "CREATED_DESC"}
        return [found for found in reversed(self.post("/artifacts/filter", wanted)) if found["key"] is not None]

    def process_of(self, run: str) -> int:
        """Wait until a flow run has a process; its id."""
        place = wait_for(lambda: self.get(f"/flow_runs/{run}")["infrastructure_pid"], f"the process of flow run {run}")
        return int(place.rpartition(":")[2])

    def _ask(self, method: str, path: str, content: Any = None) -> httpx.Response:
        return ask(method, self.api + path, content)


def ask(method: str, url: str, content: Any = None) -> httpx.Response:
    """What a Prefect server answers, once its database is free.

    SQLite is locked now and then on a busy machine: the server answers 503 and has changed nothing. Prefect's own
    client asks again then, and so does whoever presses a button of the UI.
    """

    def answer() -> httpx.Response | None:
        found = httpx.request(method, url, json=content, timeout=30)
        return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

    return wait_for(answer, f"{method} {url}")


@contextmanager
def speaking_to(site: Site) -> Generator[None]:
    """Within the block Prefect in this process talks to the site.

    Its threads for events and logs keep the server that they first had. So they end before and after: otherwise events
    of later tests would go to this server, which is gone then, and the last test would wait for them for ever.
    """
    _end_senders()
    with temporary_settings({PREFECT_API_URL: site.api}):
        try:
            yield
        finally:
            _end_senders()


def _end_senders() -> None:
    EventsWorker.drain_all(timeout=20)
    APILogWorker.drain_all(timeout=20)


@contextmanager
def running_site(folder: Path) -> Generator[Site]:
    """Start the server, make the pool and start its worker; all is ended with the context."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **_EAGER,
        "PWD": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        # The locks of devices lie there: runs of this site wait for no other tests.
        "TMPDIR": str(temporary),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    site = Site(folder, api, environment)
    with ExitStack() as stack:
        stack.enter_context(background(site, "server", "server", "start", "--host", "127.0.0.1", "--port", str(port)))
        wait_for(lambda: httpx.get(f"{api}/health").is_success, "the server to answer")
        ask("POST", f"{api}/work_pools/", {"name": POOL, "type": "process"}).raise_for_status()
        stack.enter_context(background(site, "worker", "worker", "start", "--pool", POOL, "--type", "process"))
        yield site


@contextmanager
def background(site: Site, log: str, *arguments: str) -> Generator[None]:
    """A Prefect process that runs beside the tests, in a session of its own, and is ended with all that it started."""
    with (site.folder / f"{log}.log").open("w") as file:
        process = subprocess.Popen(
            [str(_PROGRAMS / "prefect"), *arguments],
            cwd=site.folder,
            env=site.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                pass
            # Flow runs that outlive their worker, and whatever does not end when it is told to.
            for member in members_of(process.pid):
                os.kill(member, signal.SIGKILL)
            process.wait()


def members_of(session: int) -> list[int]:
    """The processes of a session that are alive."""
    listed = _list_processes("-s", str(session), "-o", "pid=,stat=")
    return [int(pid) for pid, state in (line.split() for line in listed) if not state.startswith("Z")]


def descendants_of(process: int) -> list[int]:
    """A process with all that it started and that they started."""
    children: dict[int, list[int]] = {}
    for pid, parent in (line.split() for line in _list_processes("-e", "-o", "pid=,ppid=")):
        children.setdefault(int(parent), []).append(int(pid))
    found = [process]
    for each in found:
        found += children.get(each, [])
    return found


def parent_of(process: int) -> int:
    """The process that started it."""
    return int(_list_processes("-p", str(process), "-o", "ppid=")[0])


def is_running(process: int) -> bool:
    """Whether a process lives; one that waits to be reaped does not."""
    return any(not line.strip().startswith("Z") for line in _list_processes("-p", str(process), "-o", "stat="))


def command_of(process: int) -> str:
    """Its command line; empty once it has ended."""
    return " ".join(_list_processes("-p", str(process), "-o", "args="))


def free_port() -> int:
    """A port on loopback that nobody listens at now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_for(condition: Callable[[], Found | None], what: str, poll_seconds: float = 0.2) -> Found:
    """What `condition` gives once it is true; a server that does not answer yet is asked again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        time.sleep(poll_seconds)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}")


def _list_processes(*options: str) -> Sequence[str]:
    # ps has exit code 1 if there is none.
    done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
