"""Follow an alias in a folder: python follow_folder.py /srv/releases/assistant --every 60"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import reader


def follow(root: Path, alias: str, every: float | None) -> Iterator[tuple[str, Any]]:
    """Yield version and model of each release that goes live; the files stay where they are."""

    def find_live() -> dict[str, str]:
        return json.loads((root / "aliases" / f"{alias}.json").read_bytes())

    def fetch(live: Mapping[str, str]) -> Path:
        return reader.verify(root / "versions" / live["version"], live["manifest_sha256"])

    return reader.follow(find_live, fetch, every)


if __name__ == "__main__":
    reader.run(__doc__, "folder/NAME", lambda given: follow(Path(given.place), given.alias, given.every))
