"""Chat templates: every candidate that is scored on chats must have one, and they should write alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.checkpoint import read_json_object
from tasks.plan.compatibility import ModelHeaders
from tasks.plan.findings import Findings

TEMPLATE_FILE = "chat_template.jinja"
_TOKENIZER_CONFIG = "tokenizer_config.json"


def check_chat_templates(candidates: Mapping[str, ModelHeaders]) -> Findings:
    """Find candidates that cannot read chats, or read them as other texts than the first candidate.

    Raises:
        CheckpointError: a tokenizer's configuration is no JSON.
    """
    found = Findings()
    templates = {model.label: read_chat_template(model.folder) for model in candidates.values()}
    found.problems += [
        f"{label}: the examples are chats (messages), but it has no chat template; add {TEMPLATE_FILE} to it, or write "
        'the examples as {"input", "output"}'
        for label, template in templates.items()
        if template is None
    ]
    first = next(iter(templates.values()), None)
    found.warnings += [
        f"{label}: its chat template is not the first candidate's, so their losses are not of the same texts"
        for label, template in templates.items()
        if template is not None and template != first
    ]
    return found


def read_chat_template(folder: Path) -> Any | None:
    """What writes a model's chats: a text, or in old files a list of named ones; None if there is none.

    Raises:
        CheckpointError: the tokenizer's configuration is no JSON.
    """
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    config = folder / _TOKENIZER_CONFIG
    return (read_json_object(config).get("chat_template") or None) if config.is_file() else None
