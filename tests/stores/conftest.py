"""S3 on loopback: the stand-in is started once, and empty for every test."""

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.digests import hash_file
from tasks.stores.store import Content

if TYPE_CHECKING:
    from s3_server import S3Server

# S3 itself takes no part below 5 MiB but the last; the stand-in is told to take small ones.
PART_SIZE = 1000


@pytest.fixture
def s3(s3: "S3Server", monkeypatch) -> "S3Server":
    """S3 with one bucket, `models`, and clients that wait for nothing."""
    s3.create_bucket("models")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    _refuse_parts_of_no_upload(monkeypatch)
    return s3


def _refuse_parts_of_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of an upload that was completed or aborted meanwhile is NoSuchUpload on S3; moto breaks down over it."""
    from moto.s3.exceptions import NoSuchUpload
    from moto.s3.models import S3Backend

    upload_part = S3Backend.upload_part

    def upload_existing(self: S3Backend, bucket_name: str, multipart_id: str, part_id: int, value: bytes) -> object:
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(multipart_id)
        return upload_part(self, bucket_name, multipart_id, part_id, value)

    monkeypatch.setattr(S3Backend, "upload_part", upload_existing)


@pytest.fixture
def weights(tmp_path: Path) -> Content:
    """A file of three parts of `PART_SIZE` and a short one, every part another."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(random.Random(0).randbytes(3 * PART_SIZE + 500))
    return Content(file, hash_file(file))
