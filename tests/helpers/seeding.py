"""Put a folder on the Hub's or S3's stand-in, as its owner would."""

from pathlib import Path

from hub_server import HubServer
from s3_server import S3Server


def put_on_hub(hub: HubServer, repo_id: str, folder: Path, branch: str = "main", repo_type: str = "model") -> str:
    """Commit all files of a folder; the reference of the commit."""
    if not hub.has_repo(repo_id, repo_type):
        hub.create_repo(repo_id, repo_type)
    return f"hub://{repo_id}@{hub.commit_folder(repo_id, folder, branch, repo_type=repo_type)}"


def put_on_s3(s3: S3Server, uri: str, folder: Path, *, with_sha256: bool = True) -> str:
    """Upload all files of a folder under `s3://bucket/prefix`, which is given back; the log is emptied."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = s3.client()
    if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        s3.create_bucket(bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        checksum = {"ChecksumAlgorithm": "SHA256"} if with_sha256 else {}
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), **checksum)
    client.close()
    s3.requests.clear()
    return uri
