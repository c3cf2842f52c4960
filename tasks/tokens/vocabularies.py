"""Tokens and their numbers, as tokenizer.json says; and a tokenizer with more tokens than it had."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.checkpoint import CONFIG_FILE, read_json_object
from tasks.errors import CheckpointMismatchError
from tasks.messages import list_some

TOKENIZER_FILE = "tokenizer.json"

_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_CONFIG_FILE = "tokenizer_config.json"
_OLD_FILE = "added_tokens.json"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a tokenizer.json says."""

    ids: dict[str, int]
    """Token to its number, added tokens included."""
    merges: tuple[str, ...]
    """BPE only: pairs in the order they are merged."""
    steps: dict[str, Any]
    """What is done to text before and after, by the names of tokenizer.json."""
    added: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Token that is looked for in the raw text, before the tokenizer's model splits it, to its entry in the file."""


@dataclass(frozen=True, slots=True)
class OutputVocabulary:
    """The tokens of a merged model."""

    ids: dict[str, int]
    """Token to its number: the base's, and after them the new ones."""
    new: tuple[dict[str, Any], ...] = ()
    """Entries of tokenizer.json, with their new numbers, that the base's tokenizer lacks."""


def read_vocabulary(path: Path) -> Vocabulary:
    """The content of a tokenizer.json.

    Raises:
        CheckpointError: it is no JSON object.
    """
    content = read_json_object(path)
    model: dict[str, Any] = content.get("model") or {}
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score, numbered by their place.
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    added = {token["content"]: token for token in content.get("added_tokens") or []}
    ids = {**vocabulary, **{token: entry["id"] for token, entry in added.items()}}
    # Old files write a merge as "a b", newer ones as ["a", "b"].
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or [])
    return Vocabulary(ids, tuple(merges), {step: content.get(step) for step in _STEPS}, added)


def unite(base: Vocabulary, candidates: Mapping[str, Vocabulary]) -> OutputVocabulary:
    """The base's tokens with their numbers, then those that only candidates have, in the candidates' order.

    New tokens are added tokens: the rest of the base's tokenizer stays as it is. Of a token that several candidates
    added, the first says how it is found in a text.

    Raises:
        CheckpointMismatchError: a candidate has tokens of another tokenizer model, which the base's could never make.
    """
    problems: list[str] = []
    ids, new = dict(base.ids), list[dict[str, Any]]()
    following = max(ids.values(), default=-1) + 1
    for name, candidate in candidates.items():
        own = sorted((number, token) for token, number in candidate.ids.items() if token not in base.ids)
        if foreign := [repr(token) for _, token in own if token not in candidate.added]:
            problems.append(f"{name}: {len(foreign)} tokens, {list_some(foreign)}")
        for _, token in own:
            if token in candidate.added and token not in ids:
                ids[token] = following + len(new)
                new.append({**candidate.added[token], "id": ids[token]})
    if problems:
        raise CheckpointMismatchError(
            "embeddings: union takes over added tokens only, and these are made by the tokenizer's model, which stays "
            "the base's; use embeddings: base, which leaves them out, or leave out the candidate: "
            f"{'; '.join(problems)}"
        )
    return OutputVocabulary(ids, tuple(new))


def extend_tokenizer(folder: Path, new: Sequence[Mapping[str, Any]], n_rows: int) -> dict[str, bytes]:
    """The files of a model that change when it gets more tokens.

    Args:
        folder: Of the model without them.
        new: Entries of tokenizer.json, as `unite` gives them.
        n_rows: Rows of the embeddings then.

    Returns:
        Path inside the checkpoint to new content: tokenizer files and, where the number of rows changes, config.json.

    Raises:
        CheckpointError: one of them is no JSON object.
    """
    changed: dict[str, bytes] = {}
    config = read_json_object(folder / CONFIG_FILE)
    size = vocabulary_size(config)
    if size is not None and size != n_rows:
        changed[CONFIG_FILE] = _encode(_resize(config, size, n_rows))
    if not new:
        return changed
    content = read_json_object(folder / TOKENIZER_FILE)
    changed[TOKENIZER_FILE] = _encode({**content, "added_tokens": [*(content.get("added_tokens") or []), *new]})
    # Files of transformers 4 repeat the added tokens; its tokenizers refuse files that do not agree.
    settings = read_json_object(folder / _CONFIG_FILE) if (folder / _CONFIG_FILE).is_file() else {}
    if "added_tokens_decoder" in settings:
        more = {str(entry["id"]): {key: entry[key] for key in entry if key != "id"} for entry in new}
        decoder = {**settings["added_tokens_decoder"], **more}
        changed[_CONFIG_FILE] = _encode({**settings, "added_tokens_decoder": decoder})
    if (folder / _OLD_FILE).is_file():
        old = read_json_object(folder / _OLD_FILE)
        changed[_OLD_FILE] = _encode({**old, **{entry["content"]: entry["id"] for entry in new}})
    return changed


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Rows of the embeddings, as config.json says, for the text where there are several; None if it does not."""
    for section in (config, config.get("text_config")):
        if isinstance(section, Mapping) and isinstance(size := section.get("vocab_size"), int):
            return size
    return None


def _resize(config: Mapping[str, Any], size: int, n_rows: int) -> dict[str, Any]:
    """With the new size wherever the old one stands."""
    return {
        key: n_rows
        if key == "vocab_size" and value == size
        else _resize(value, size, n_rows)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


def _encode(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
