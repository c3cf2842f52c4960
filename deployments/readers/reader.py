"""What all readers share: prove a release, load it, and look again. Copy it with the reader of your place.

It needs none of this repository's packages, only those that load models.
"""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger("reader")


def follow(
    find_live: Callable[[], Mapping[str, str]], fetch: Callable[[Mapping[str, str]], Path], every: float | None
) -> Iterator[tuple[str, Any]]:
    """Yield version and model of what is live now and, `every` so many seconds, of what went live since.

    Args:
        find_live: Reads the alias: at least its keys `version` and `manifest_sha256`.
        fetch: Makes of that a folder whose files are proven.
        every: Seconds between looks. A look that fails is logged, and the caller keeps the model that it has. None:
            look once, and let errors through.
    """
    held = None
    while True:
        try:
            live = find_live()
            # By content: a release that was removed and built again has the same version and another manifest.
            if live["manifest_sha256"] != held:
                model = load(fetch(live))
                held = live["manifest_sha256"]
                yield live["version"], model
        except Exception as error:
            if every is None:
                raise
            logger.warning("nothing new is loaded: %s: %s", type(error).__name__, error)
        if every is None:
            return
        time.sleep(every)


def verify(folder: Path, manifest_sha256: str) -> Path:
    """The folder, if every file in it is what was released; ValueError names those that are not."""
    manifest = (folder / "manifest.json").read_bytes()
    files = {"manifest.json": manifest_sha256} | {
        path: digest["sha256"] for path, digest in json.loads(manifest)["files"].items()
    }
    # The manifest comes first: where it is wrong, what it says of the others means nothing.
    for path, expected in files.items():
        with (folder / path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"{folder / path}: damaged: expected sha256 {expected}, found {found}")
    return folder


def load(folder: Path) -> Any:
    """The model, as its kind is served."""
    if (folder / "modules.json").exists():
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder))
    import transformers

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(folder)


def run(description: str | None, place: str, start: Callable[[argparse.Namespace], Iterator[tuple[str, Any]]]) -> None:
    """The command line of a reader; a server would put each model in place of the one before instead of naming it."""
    # Only our own lines: HTTP libraries log every URL, also signed ones.
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("place", help=place)
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--local", type=Path, default=Path("models"), help="folder for downloads (S3)")
    parser.add_argument("--every", type=float, default=60, help="seconds between looks")
    parser.add_argument("--once", action="store_true", help="load what is live now, then end")
    arguments = parser.parse_args()
    if arguments.once:
        arguments.every = None
    for version, model in start(arguments):
        logger.info("now live: %s (%s)", version, type(model).__name__)
