"""HTTP of the Hub stand-in: a request as a `Call`, what goes back as an `Answer`, and the socket's side of faults."""

import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs

from hub_repos import HubError


@dataclass
class Call:
    """One request; `args` are the parts of its path that the route names, without quoting."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes
    args: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def token(self) -> str | None:
        """The token it came with."""
        value = self.headers.get("Authorization")
        return None if value is None else value.removeprefix("Bearer ")

    def arg(self, name: str) -> str:
        """A part of the path, "" if it was left out."""
        return self.args.get(name) or ""

    def parameter(self, name: str, default: str = "") -> str:
        """A parameter of the query."""
        return self.query.get(name, [default])[0]

    def is_set(self, name: str) -> bool:
        """Whether a parameter of the query is on."""
        return self.parameter(name).lower() in ("1", "true")

    def json(self) -> Any:
        """The body, parsed."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"Body is not JSON: {error}") from None


@dataclass
class Answer:
    """What is sent back. A HEAD request gets it without the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """`value` as JSON."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def error_answer(error: HubError) -> Answer:
    """An error as the Hub tells it: the client reads the headers."""
    headers = {"X-Error-Message": " ".join(error.message.split()).encode("ascii", "replace").decode()}
    headers |= {"X-Error-Code": error.code} if error.code else {}
    headers |= {"X-Repo-Commit": error.commit} if error.commit else {}
    return json_answer({"error": error.message}, error.status, headers)


def ranged(call: Call, content: bytes, headers: dict[str, str]) -> Answer:
    """Content, or the part of it that a Range header asks for."""
    headers = {"Accept-Ranges": "bytes", **headers}
    wanted = call.headers.get("Range", "")
    if not wanted.startswith("bytes=") or "," in wanted:
        return Answer(200, content, headers)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    size = len(content)
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Answer(206, content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class Handler(BaseHTTPRequestHandler):
    """Reads requests of one connection, hands each to the server's `serve`, and writes what comes back."""

    protocol_version = "HTTP/1.1"
    # Without this, small answers on a kept connection wait 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        """Serve one request."""
        path, _, query = self.path.partition("?")
        call = Call(self.command, path, parse_qs(query), self.headers, self._read_body())
        cast(Listener, self.server).serve(call, self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def reset(self) -> None:
        """Drop the connection so that the client sees it reset."""
        # Zero seconds of linger: close sends RST in place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def send(self, answer: Answer, keep: int | None = None) -> None:
        """Write an answer; with `keep`, promise the whole body, write this many bytes of it and hang up."""
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"Content-Length: {len(answer.body)}", "", ""]
        body = b"" if self.command == "HEAD" else answer.body[:keep]
        self.wfile.write("\r\n".join(lines).encode("latin-1") + body)
        self.close_connection = self.close_connection or keep is not None

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size)
            if len(body) < size:
                # The client died on its way: half of a commit must not pass for a shorter one.
                raise ConnectionError("request ended before its body did")
            return body
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log of requests is kept by the server."""


class Listener(ThreadingHTTPServer):
    """Accepts connections on a free port of 127.0.0.1; `stop` ends all of them and joins their threads."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, serve: Callable[[Call, Handler], None]) -> None:
        self.serve = serve
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread of its own."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are no news here."""

    def stop(self) -> None:
        """Stop listening, end connections that clients keep open, join the threads."""
        self.shutdown()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.server_close()
