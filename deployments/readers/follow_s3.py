"""Follow an alias on S3: python follow_s3.py s3://models/assistant --local /var/models --every 60"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import reader


def follow(place: str, local: Path, alias: str, every: float | None) -> Iterator[tuple[str, Any]]:
    """Yield version and model of each release that goes live, downloaded into a folder of its own under `local`."""
    bucket, _, name = place.removeprefix("s3://").rstrip("/").partition("/")
    s3 = boto3.client("s3")

    def find_live() -> dict[str, str]:
        return json.load(s3.get_object(Bucket=bucket, Key=f"{name}/aliases/{alias}.json")["Body"])

    def fetch(live: Mapping[str, str]) -> Path:
        goal = local / f"{live['version']}-{live['manifest_sha256'][:12]}"
        if goal.exists():
            return reader.verify(goal, live["manifest_sha256"])
        local.mkdir(parents=True, exist_ok=True)
        # Downloaded beside the goal, proven, then named: nobody else on this machine sees half of a release.
        with tempfile.TemporaryDirectory(dir=local, prefix=".") as draft:
            download("manifest.json", live["version"], Path(draft) / "release")
            for path in json.loads((Path(draft) / "release" / "manifest.json").read_bytes())["files"]:
                download(path, live["version"], Path(draft) / "release")
            return reader.verify(Path(draft) / "release", live["manifest_sha256"]).rename(goal)

    def download(path: str, version: str, folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, f"{name}/versions/{version}/{path}", str(folder / path))

    return reader.follow(find_live, fetch, every)


if __name__ == "__main__":
    reader.run(
        __doc__, "s3://bucket/prefix/NAME", lambda given: follow(given.place, given.local, given.alias, given.every)
    )
