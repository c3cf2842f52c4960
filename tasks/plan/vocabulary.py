"""Tokenizers: does a candidate read text into the same token numbers as the base?

Row 517 of the embeddings must mean the same token in every model that is averaged. Content is compared, not bytes:
settings of truncation and padding, and how the JSON is laid out, do not matter.
"""

from collections.abc import Iterator
from pathlib import Path

from tasks.checkpoint import read_json_object
from tasks.messages import list_some
from tasks.plan.findings import BY_TOKEN, Findings
from tasks.records import Checkpoint
from tasks.tokens.vocabularies import TOKENIZER_FILE, Vocabulary, read_vocabulary

# Vocabularies outside tokenizer.json, of models that were saved without the fast tokenizer.
_PLAIN_VOCABULARIES = (
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# A chat model ends its turns with another token than its base, and pad tokens are never learned.
_BASE_DECIDES = frozenset({"eos_token", "pad_token"})


def compare_tokenizers(base: Checkpoint, candidate: Checkpoint, label: str, by_token: bool = False) -> Findings:
    """Compare vocabulary, merges, special tokens and text handling with the base's.

    Args:
        base: With its small files on this machine.
        candidate: The same.
        label: How messages call the candidate.
        by_token: Whether rows are looked up by token: then tokens and their numbers may differ.

    Raises:
        CheckpointError: a tokenizer file is no JSON.
    """
    found = Findings()
    if by_token and TOKENIZER_FILE not in candidate.files:
        found.problems.append(
            f"{label}: it has no {TOKENIZER_FILE}, by which rows are merged by token; save its tokenizer in the fast "
            "form"
        )
    else:
        found.extend(_compare_vocabularies(base, candidate, label, by_token))
    names = {"tokenizer_config.json", "special_tokens_map.json"}
    if any(base.files.get(name) != candidate.files.get(name) for name in names):
        found.extend(_compare_special_tokens(base.folder, candidate.folder, label))
    return found


def _compare_vocabularies(base: Checkpoint, candidate: Checkpoint, label: str, by_token: bool) -> Findings:
    expected, found = base.files.get(TOKENIZER_FILE), candidate.files.get(TOKENIZER_FILE)
    if expected and found:
        if expected == found:
            return Findings()
        ours, theirs = (read_vocabulary(model.folder / TOKENIZER_FILE) for model in (base, candidate))
        return _compare_content(ours, theirs, label, by_token)
    names = [name for name in _PLAIN_VOCABULARIES if name in base.files]
    if not names and not expected:
        return Findings(warnings=[f"{label}: the base has no tokenizer, so vocabularies could not be compared"])
    kept = [name for name in names if name in candidate.files]
    if not kept and not found:
        missing = TOKENIZER_FILE if expected else ", ".join(names)
        return Findings([f"{label}: it lacks the base's tokenizer ({missing}); copy the tokenizer's files in"])
    changed = [name for name in kept if base.files[name] != candidate.files[name]]
    if changed:
        return Findings([f"{label}: {', '.join(changed)} differs from the base's; both must number tokens alike"])
    if kept:
        return Findings()
    return Findings(
        warnings=[f"{label}: its tokenizer has other files than the base's, so vocabularies could not be compared"]
    )


def _compare_content(base: Vocabulary, candidate: Vocabulary, label: str, by_token: bool) -> Findings:
    found = Findings()
    differing = [] if by_token else list(_differing_tokens(base.ids, candidate.ids))
    if differing:
        found.problems.append(
            f"{label}: {len(differing)} tokens of its vocabulary ({len(candidate.ids)} tokens) and the base's "
            f"({len(base.ids)}) do not agree: {list_some(differing)}; both must number tokens alike; {BY_TOKEN}"
        )
    elif base.merges != candidate.merges:
        pairs = enumerate(zip(base.merges, candidate.merges, strict=False))
        common = min(len(base.merges), len(candidate.merges))
        first = next((number for number, (ours, theirs) in pairs if ours != theirs), common)
        found.problems.append(
            f"{label}: its BPE merges differ from the base's from number {first} on; both must split text alike"
        )
    for step in base.steps:
        if base.steps[step] != candidate.steps[step]:
            found.warnings.append(
                f"{label}: tokenizer.json has another {step} than the base's; the merged model takes the base's"
            )
    return found


def _differing_tokens(base: dict[str, int], candidate: dict[str, int]) -> Iterator[str]:
    for token, number in base.items():
        if token not in candidate:
            yield f"{token!r} (only in the base)"
        elif candidate[token] != number:
            yield f"{token!r} ({candidate[token]} here, {number} in the base)"
    yield from (f"{token!r} (only here)" for token in candidate if token not in base)


def _compare_special_tokens(base: Path, candidate: Path, label: str) -> Findings:
    found = Findings()
    expected_tokens, tokens = _read_special_tokens(base), _read_special_tokens(candidate)
    for name in _SPECIAL_TOKENS:
        expected, token = expected_tokens.get(name), tokens.get(name)
        if expected is None or token is None or expected == token:
            continue  # What one side leaves unsaid is a default of its tokenizer class.
        sentence = f"{label}: {name} is {token!r}, the base's is {expected!r}"
        if name in _BASE_DECIDES:
            found.warnings.append(f"{sentence}; the merged model takes the base's")
        else:
            found.problems.append(f"{sentence}; both must mark text alike")
    return found


def _read_special_tokens(folder: Path) -> dict[str, str]:
    """Name to token; an older file writes a token as an object with its settings."""
    tokens: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        content = read_json_object(folder / file) if (folder / file).is_file() else {}
        for name in _SPECIAL_TOKENS:
            value = content.get(name)
            token = value.get("content") if isinstance(value, dict) else value
            if isinstance(token, str):
                tokens[name] = token
    return tokens
