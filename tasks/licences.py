"""The licence of a model, as the YAML header of its card (README.md) states it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"

HUB_LICENCES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc
    lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
    odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)
"""What the Hub accepts as `license` of a card; others are `other` with a name of their own.

Source: https://huggingface.co/docs/hub/repositories-licenses
"""

_FENCE = "---"


def read_licence_text(card: str, where: object = CARD_FILE) -> str | None:
    """The `license` of a card's header; None if there is no header, or no licence in it.

    Args:
        card: All of the card.
        where: What messages call it.
    """
    licence = _read_header(card, where).get("license")
    return licence if isinstance(licence, str) else None


def read_licence(card: Path) -> str | None:
    """As `read_licence_text` of a card on this machine; None also if there is no card, or none in UTF-8."""
    try:
        return read_licence_text(card.read_text(encoding="utf-8"), card)
    except (OSError, ValueError):
        return None


def _read_header(card: str, where: object) -> dict[str, Any]:
    lines = card.splitlines()
    if not lines or lines[0].strip() != _FENCE or _FENCE not in lines[1:]:
        return {}
    try:
        header = yaml.safe_load("\n".join(lines[1 : lines.index(_FENCE, 1)]))
    except yaml.YAMLError as error:
        logger.warning("%s: the header is no YAML, so the licence is not known: %s", where, error)
        return {}
    return cast(dict[str, Any], header) if isinstance(header, dict) else {}


def licence_problems(models: Mapping[str, str | None], allowed: Sequence[str]) -> list[str]:
    """Say of each model whose licence is not allowed, or not stated, that it cannot be used.

    Args:
        models: Name of each model to the licence that its card states.
        allowed: What `publish.allow_licences` lists; upper and lower case are the same.

    Returns:
        One sentence per offender, in the order of `models`; empty if all are allowed.
    """
    accepted = {licence.lower() for licence in allowed}
    listed = ", ".join(allowed) or "none"
    return [
        f"{name}: its card states {f'the licence {licence}' if licence else 'no licence'}; publish.allow_licences "
        f"allows {listed}"
        for name, licence in models.items()
        if licence is None or licence.lower() not in accepted
    ]
