"""The licence of a model, as its own card states it."""

import logging
from pathlib import Path
from typing import Any, cast

import yaml

from tasks.records import Checkpoint

logger = logging.getLogger(__name__)

_CARD = "README.md"
_FENCE = "---"


def read_licence(checkpoint: Checkpoint) -> str | None:
    """The `license` of the card's YAML header; None if there is no card, no header or no licence in it."""
    try:
        card = (checkpoint.folder / _CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        # No card, none in UTF-8, or the model's files are not on this machine: then the licence is not known.
        return None
    licence = _read_header(card, checkpoint.folder / _CARD).get("license")
    return licence if isinstance(licence, str) else None


def _read_header(card: str, where: Path) -> dict[str, Any]:
    lines = card.splitlines()
    if not lines or lines[0].strip() != _FENCE or _FENCE not in lines[1:]:
        return {}
    try:
        header = yaml.safe_load("\n".join(lines[1 : lines.index(_FENCE, 1)]))
    except yaml.YAMLError as error:
        logger.warning("%s: the header is no YAML, so the licence is not known: %s", where, error)
        return {}
    return cast(dict[str, Any], header) if isinstance(header, dict) else {}
