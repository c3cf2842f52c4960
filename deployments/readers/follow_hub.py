"""Follow an alias on the Hub: python follow_hub.py org/assistant --every 60

Branch main is always exactly the champion; any other alias has a branch alias/NAME.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import reader
from huggingface_hub import HfApi, hf_hub_download, snapshot_download


def follow(repo_id: str, alias: str, every: float | None) -> Iterator[tuple[str, Any]]:
    """Yield version and model of each release that goes live, downloaded into the Hub's cache."""
    branch = "main" if alias == "champion" else f"alias/{alias}"

    def find_live() -> dict[str, str]:
        # The commit is looked up once, so that alias and files are of one moment.
        commit = HfApi().model_info(repo_id, revision=branch).sha
        alias_file = hf_hub_download(repo_id, f"aliases/{alias}.json", revision=commit, force_download=True)
        return json.loads(Path(alias_file).read_bytes()) | {"commit": commit}

    def fetch(live: Mapping[str, str]) -> Path:
        try:
            return reader.verify(Path(snapshot_download(repo_id, revision=live["commit"])), live["manifest_sha256"])
        except ValueError:
            # The client checks sizes only, and would find the damaged file in its cache for ever.
            folder = snapshot_download(repo_id, revision=live["commit"], force_download=True)
            return reader.verify(Path(folder), live["manifest_sha256"])

    return reader.follow(find_live, fetch, every)


if __name__ == "__main__":
    reader.run(__doc__, "org/NAME", lambda given: follow(given.place, given.alias, given.every))
