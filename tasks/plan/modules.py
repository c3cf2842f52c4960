"""sentence-transformers folders: the chain of modules behind the encoder must agree, pooling above all.

A merge of a CLS-pooled and a mean-pooled model has fitting tensors and useless embeddings.
"""

from pathlib import Path
from typing import Any

from tasks.checkpoint import CONFIG_FILE, MODULES_FILE, read_json_object, read_modules
from tasks.plan.findings import Findings, shown
from tasks.records import Checkpoint

_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_RENAMED = {"word_embedding_dimension": "embedding_dimension"}


def compare_modules(base: Checkpoint, candidate: Checkpoint, label: str) -> Findings:
    """Compare the modules and their settings with the base's.

    Raises:
        CheckpointError: a file of the modules is missing or no JSON.
    """
    has_base, has_candidate = MODULES_FILE in base.files, MODULES_FILE in candidate.files
    if has_base != has_candidate:
        having, lacking = ("the base", "it") if has_base else ("it", "the base")
        return Findings(
            [
                f"{label}: {having} has {MODULES_FILE} (sentence-transformers) and {lacking} has not, so pooling is "
                "unknown; save both with SentenceTransformer.save"
            ]
        )
    if not has_base:
        return Findings()
    expected, modules = _read_chain(base.folder), _read_chain(candidate.folder)
    if [kind for kind, _ in expected] != [kind for kind, _ in modules]:
        chains = " > ".join(kind for kind, _ in modules), " > ".join(kind for kind, _ in expected)
        return Findings([f"{label}: its modules are {chains[0]}, the base's {chains[1]}; both must end alike"])
    found = Findings()
    for (kind, expected_settings), (_, settings) in zip(expected, modules, strict=True):
        for key in expected_settings:
            if key in settings and settings[key] != expected_settings[key]:
                values = f"{shown(settings[key])}, the base's {shown(expected_settings[key])}"
                found.problems.append(f"{label}: its {kind} has {key} = {values}; both must make embeddings alike")
    found.warnings += _compare_prompts(base, candidate, label)
    return found


def _read_chain(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Class name and settings of every module after the encoder's own, in order; of the encoder only the name."""
    return [(kind, _read_settings(folder / path) if path else {}) for kind, path in read_modules(folder)]


def _read_settings(folder: Path) -> dict[str, Any]:
    """A module's config.json in today's words; empty if it has none (Normalize in older versions)."""
    if not (folder / CONFIG_FILE).is_file():
        return {}
    settings = {_RENAMED.get(key, key): value for key, value in read_json_object(folder / CONFIG_FILE).items()}
    flags = [key for key in _POOLING_FLAGS if key in settings]
    active = [_POOLING_FLAGS[key] for key in flags if settings[key]] or ["mean"]
    kept = {key: value for key, value in settings.items() if key not in _POOLING_FLAGS}
    if flags:
        kept.setdefault("pooling_mode", active)
    if isinstance(kept.get("pooling_mode"), str):
        kept["pooling_mode"] = [kept["pooling_mode"]]
    return kept


def _compare_prompts(base: Checkpoint, candidate: Checkpoint, label: str) -> list[str]:
    name = "config_sentence_transformers.json"
    if base.files.get(name) == candidate.files.get(name) or name not in base.files or name not in candidate.files:
        return []
    expected, found = (
        {key: text for key, text in (read_json_object(model.folder / name).get("prompts") or {}).items() if text}
        for model in (base, candidate)
    )
    if expected == found:
        return []
    return [f"{label}: its prompts are {shown(found)}, the base's {shown(expected)}; the merged model takes the base's"]
