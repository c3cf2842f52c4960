"""moto's S3 without a server: one request in, one answer out; and S3's names of operations and errors."""

import io
import sys
from collections.abc import Collection
from xml.sax.saxutils import escape

from hub_http import Answer, Call
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import S3Backend
from werkzeug.test import run_wsgi_app

# Of a bucket: what a GET asks for, by a parameter of its query.
_BUCKET_READS = {"list-type": "ListObjectsV2", "uploads": "ListMultipartUploads", "location": "GetBucketLocation"}
_BUCKET = {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket", "POST": "DeleteObjects"}
_OBJECT = {"HEAD": "HeadObject", "GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_UPLOAD = {
    "GET": "ListParts",
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
}


class Moto:
    """moto's S3; its buckets are shared by the whole process."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)

    @property
    def backend(self) -> S3Backend:
        """Where moto keeps buckets and objects."""
        return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]

    def ask(self, call: Call, path: str, query: str, body: bytes, dropped: Collection[str]) -> Answer:
        """Let moto answer.

        Args:
            call: The request.
            path: Its path, unquoted.
            query: Its query as it came.
            body: Its content, without `aws-chunked` framing.
            dropped: Headers, in lower case, that moto shall not see.
        """
        environ = {
            "REQUEST_METHOD": call.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "RAW_URI": f"{call.path}?{query}" if query else call.path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in call.headers.items():
            if name.lower() not in dropped:
                environ.setdefault(_variable(name), value)
        chunks, status, headers = run_wsgi_app(self._application, environ, buffered=True)
        # `Handler.send` derives the length from the body, and sends no body to HEAD.
        content = bytes(int(headers.get("Content-Length", 0))) if call.method == "HEAD" else b"".join(chunks)
        kept = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "connection")}
        return Answer(int(status.split()[0]), content, kept)


def operation_of(call: Call) -> str:
    """S3's name of what is asked for; `call.query` holds parameters without a value too."""
    _, _, key = call.path.lstrip("/").partition("/")
    if not key:
        named = (name for parameter, name in _BUCKET_READS.items() if parameter in call.query)
        return next(named, "ListObjects") if call.method == "GET" else _BUCKET[call.method]
    copies = "x-amz-copy-source" in call.headers
    if "uploadId" in call.query:
        return "UploadPartCopy" if copies else _UPLOAD[call.method]
    if call.method == "POST":
        return "CreateMultipartUpload"
    if call.method == "GET" and "attributes" in call.query:
        return "GetObjectAttributes"
    return "CopyObject" if copies else _OBJECT[call.method]


def error_answer(status: int, code: str, message: str) -> Answer:
    """An error as S3 tells it."""
    told = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{told}'
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
