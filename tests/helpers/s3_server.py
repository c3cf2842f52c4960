"""A stand-in of S3 on loopback: moto behind a wrapper that checks content as S3 does, logs, and injects faults.

    with S3Server() as server:
        server.create_bucket("models")
        server.client().put_object(Bucket="models", Key="a/config.json", Body=b"{}")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        server.fail("GetObject", "status", times=2, status=503)

moto keeps its buckets in the process, so two servers would share them: start one for a session and `clear` it between
tests. Not here: other regions than `S3Server.region`, CRC32C and CRC64NVME, who may do what.
"""

import threading
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote

from boto3.session import Session
from hub_faults import flipped
from hub_http import Answer, Call, Handler, Listener
from moto.core.utils import utcnow
from s3_content import CHECKSUMS, Refused, check_content, composite, encoded, list_checksums, unchunked
from s3_faults import CODES, Fault
from s3_moto import Moto, error_answer, operation_of

LOGGED_HEADERS = ("If-Match", "If-None-Match", "x-amz-server-side-encryption", "x-amz-request-payer")


class Request(NamedTuple):
    """A line of the log. `path` is unquoted and without query; `status` is 0 where the connection was reset instead."""

    method: str
    path: str
    operation: str
    status: int
    headers: dict[str, str]
    """Those of `LOGGED_HEADERS` that it came with."""


class S3Server:
    """The stand-in. Start it with `with`; one server serves any number of tests, with `clear` between them.

    Attributes:
        endpoint: What clients are given.
        requests: Log of all requests since `clear`, which begins a new list.
        ignore_conditions: Drop If-Match and If-None-Match, as a store does that honours no conditional writes.
    """

    region = "us-east-1"
    access_key_id = "AKIATESTTESTTESTTEST"
    secret_access_key = "secret-of-the-test/never+in+a+message"

    def __init__(self) -> None:
        self._moto = Moto()
        self._lock = threading.RLock()
        self._listener = Listener(self._serve)
        self.endpoint = f"http://127.0.0.1:{self._listener.server_address[1]}"
        self._bugs: list[str] = []
        session = Session(self.access_key_id, self.secret_access_key, region_name=self.region)
        self._client: Any = session.client("s3", endpoint_url=self.endpoint)
        self.clear()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._listener.stop()
        self._thread.join()
        # moto keeps large objects in temporary files, which it closes only here.
        self.clear()
        if self._bugs:
            raise AssertionError("the S3 stand-in failed:\n" + "\n".join(self._bugs))

    def clear(self) -> None:
        """Back to how it began: no buckets, faults or log; credentials valid; conditions honoured."""
        with self._lock:
            self._moto.backend.reset()
            self._faults: list[Fault] = []
            self._checksums: dict[str, dict[str, str]] = {}
            self._parts: dict[str, dict[int, dict[str, str]]] = {}
            # A new list, so that a request that is still under way does not write into it.
            self.requests: list[Request] = []
            self._expired = False
            self.ignore_conditions = False

    def environment(self) -> dict[str, str]:
        """Variables that lead boto3 here."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> Any:
        """A plain client, to seed and to look; its requests are logged and hit by faults like all others."""
        return self._client

    def create_bucket(self, name: str) -> None:
        """Make a bucket; the request is not logged."""
        with self._lock:
            self._moto.backend.create_bucket(name, self.region)

    def set_age(self, bucket: str, key: str, seconds: float) -> None:
        """Let an object be written so long ago."""
        with self._lock:
            stored = self._moto.backend.get_bucket(bucket).keys[key]
            stored.last_modified = utcnow() - timedelta(seconds=seconds)

    def fail(self, operation: str, kind: str, times: int | None = 1, key_contains: str = "", **options: Any) -> Fault:
        """Let the next requests fail.

        Args:
            operation: S3's name of it, e.g. `PutObject`; see `s3_faults.OPERATIONS`.
            kind: status (`status`, `code`, `message`, `retry_after`); reset: no answer, RST; truncate: half of the body
                under the full Content-Length; flip: one byte of the body inverted, checksums untouched
                (`direction="download"`), or of what was received, before it is checked (`direction="upload"`);
                applied_then_lost: done, then reset; delay (`seconds`).
            times: How many requests; None is for ever.
            key_contains: Only requests whose bucket or key contains this.
            options: Of the kind; see `s3_faults.OPTIONS`.

        Returns:
            The fault, whose `seen` counts the requests it hit.
        """
        fault = Fault(operation, kind, times, key_contains, options)
        with self._lock:
            self._faults.append(fault)
        return fault

    def expire_credentials(self) -> None:
        """Answer ExpiredToken to everything, until `clear`."""
        self._expired = True

    def _serve(self, call: Call, handler: Handler) -> None:
        query = handler.path.partition("?")[2]
        call.query = parse_qs(query, keep_blank_values=True)
        path, operation = unquote(call.path), operation_of(call)
        with self._lock:
            fault = next((fault for fault in self._faults if fault.take(operation, path)), None)
        log = self.requests
        if fault and fault.kind == "delay":
            # Not time.sleep: tests of retries replace it.
            threading.Event().wait(fault.options["seconds"])
            if log is not self.requests:
                # The test that sent it has given it up and is over; the next one must not meet what it does.
                return handler.reset()
        try:
            answer = self._answer(call, path, query, operation, fault)
        except Exception:
            self._bugs.append(f"{call.method} {call.path}\n{traceback.format_exc()}")
            answer = error_answer(500, "InternalError", "the stand-in itself failed")
        kind = fault.kind if fault else ""
        lost = kind in ("reset", "applied_then_lost")
        headers = {name: call.headers[name] for name in LOGGED_HEADERS if name in call.headers}
        log.append(Request(call.method, path, operation, 0 if lost else answer.status, headers))
        if lost:
            handler.reset()
        else:
            handler.send(answer, keep=len(answer.body) // 2 if kind == "truncate" else None)

    def _answer(self, call: Call, path: str, query: str, operation: str, fault: Fault | None) -> Answer:
        kind, options = (fault.kind, fault.options) if fault else ("", {})
        flip = options["direction"] if kind == "flip" else ""
        if self._expired:
            return error_answer(400, "ExpiredToken", "The provided token has expired.")
        if kind == "status":
            return _asked(options)
        if kind == "reset":
            return Answer(0)
        answer = self._apply(call, path, query, operation, flip == "upload")
        return Answer(answer.status, flipped(answer.body), answer.headers) if flip == "download" else answer

    def _apply(self, call: Call, path: str, query: str, operation: str, damaged: bool) -> Answer:
        """Check the content, let moto do it, and add what it forgets."""
        body, trailers = call.body, dict[str, str]()
        dropped = {"if-match", "if-none-match"} if self.ignore_conditions else set[str]()
        if "aws-chunked" in call.headers.get("Content-Encoding", ""):
            body, trailers = unchunked(body)
            dropped |= {"content-encoding", "x-amz-trailer", "x-amz-decoded-content-length", "x-amz-content-sha256"}
        body = flipped(body) if damaged else body
        try:
            sent = check_content(body, call.headers, trailers)
        except Refused as refusal:
            return error_answer(400, refusal.code, refusal.message)
        # One at a time, so that of two conditional writes exactly one wins.
        with self._lock:
            answer = self._moto.ask(call, path, query, body, dropped)
            if answer.status < 300:
                self._remember(call, path, operation, sent)
                self._add_checksums(call, path, operation, answer)
                if operation == "ListParts":
                    answer.body = list_checksums(answer.body, self._parts.get(call.parameter("uploadId"), {}))
        return answer

    def _remember(self, call: Call, path: str, operation: str, sent: dict[str, str]) -> None:
        upload = call.parameter("uploadId")
        if operation == "PutObject":
            self._checksums[path] = sent
        elif operation == "UploadPart":
            self._parts.setdefault(upload, {})[int(call.parameter("partNumber"))] = sent
        elif operation == "CompleteMultipartUpload" and upload in self._parts:
            self._checksums[path] = composite(self._parts.pop(upload))
        elif operation == "CopyObject":
            source = "/" + unquote(call.headers["x-amz-copy-source"]).lstrip("/").split("?")[0]
            self._checksums[path] = self._checksums.get(source, {})
            if call.headers.get("x-amz-checksum-algorithm") == "SHA256":
                bucket, _, key = path.lstrip("/").partition("/")
                copied = self._moto.backend.get_bucket(bucket).keys[key].value
                self._checksums[path] = {"x-amz-checksum-sha256": encoded(CHECKSUMS["sha256"](copied))}

    def _add_checksums(self, call: Call, path: str, operation: str, answer: Answer) -> None:
        """Give back what was promised at the upload; moto forgets it where no algorithm was named."""
        if operation not in ("HeadObject", "GetObject"):
            return
        for name in [name for name in answer.headers if name.lower().startswith("x-amz-checksum-")]:
            del answer.headers[name]
        if call.headers.get("x-amz-checksum-mode") == "ENABLED" and answer.status == 200:
            answer.headers.update(self._checksums.get(path, {}))


def _asked(options: Mapping[str, Any]) -> Answer:
    """The answer that a fault of the kind `status` asks for."""
    status = options["status"]
    answer = error_answer(status, options["code"] or CODES.get(status, "InternalError"), options["message"])
    if options["retry_after"] is not None:
        answer.headers["Retry-After"] = str(options["retry_after"])
    return answer
