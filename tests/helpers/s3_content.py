"""What S3 does with content and moto does not: check what was received against its checksums, and give them back."""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping

CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "sha1": lambda body: hashlib.sha1(body).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
}


class Refused(Exception):
    """S3's code and message of a refusal (400)."""

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code, self.message = code, message


def encoded(digest: bytes) -> str:
    """A digest as S3's headers hold it."""
    return base64.b64encode(digest).decode()


def unchunked(body: bytes) -> tuple[bytes, dict[str, str]]:
    """Content and trailing headers of an `aws-chunked` body: `size[;signature]`, data, ..., `0`, `name:value` lines."""
    content, rest = b"", body
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        content, rest = content + rest[:size], rest[size + 2 :]
    lines = [line.decode().partition(":") for line in rest.split(b"\r\n") if b":" in line]
    return content, {name.strip().lower(): value.strip() for name, _, value in lines}


def checksum_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, or trailers, that promise a checksum of the content; names in lower case."""
    named = {name.lower(): value for name, value in headers.items()}
    return {f"x-amz-checksum-{name}": named[f"x-amz-checksum-{name}"] for name in CHECKSUMS
            if f"x-amz-checksum-{name}" in named}  # fmt: skip


def check_content(body: bytes, headers: Mapping[str, str], trailers: Mapping[str, str]) -> dict[str, str]:
    """The checksums that were sent, after each was compared with the body.

    Raises:
        Refused: with S3's own code: BadDigest, or XAmzContentSHA256Mismatch for the hash that was signed.
    """
    checksums = checksum_headers({**headers, **trailers})
    for header, value in checksums.items():
        name = header.rpartition("-")[2]
        if encoded(CHECKSUMS[name](body)) != value:
            raise Refused("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")
    md5 = headers.get("Content-MD5")
    if md5 is not None and encoded(hashlib.md5(body).digest()) != md5:
        raise Refused("BadDigest", "The Content-MD5 you specified did not match what we received.")
    signed = headers.get("x-amz-content-sha256", "")
    if re.fullmatch("[0-9a-f]{64}", signed) and hashlib.sha256(body).hexdigest() != signed:
        raise Refused("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match the content.")
    return checksums


def composite(parts: Mapping[int, Mapping[str, str]]) -> dict[str, str]:
    """Checksum of an object made of parts: that of the parts' checksums, `-` and their number."""
    common = set.intersection(*(set(part) for part in parts.values())) if parts else set[str]()
    found: dict[str, str] = {}
    for header in common:
        joined = b"".join(base64.b64decode(parts[number][header]) for number in sorted(parts))
        found[header] = f"{encoded(CHECKSUMS[header.rpartition('-')[2]](joined))}-{len(parts)}"
    return found


def list_checksums(body: bytes, parts: Mapping[int, Mapping[str, str]]) -> bytes:
    """The answer to ListParts with the checksums of the parts."""

    def extended(match: re.Match[bytes]) -> bytes:
        sent = parts.get(int(match[1]), {})
        named = {f"Checksum{header.rpartition('-')[2].upper()}": value for header, value in sent.items()}
        return match[0] + "".join(f"<{name}>{value}</{name}>" for name, value in named.items()).encode()

    return re.sub(rb"<PartNumber>(\d+)</PartNumber>", extended, body)
