"""The least that a manifest holds, for releases that tests write by hand."""

from typing import Any


def minimal_manifest(version: str, sequence: int, model_fingerprint: str, files: dict[str, Any]) -> dict[str, Any]:
    """A manifest that says of a release what our own code reads, and nothing of how it came about."""
    return {
        "version": version,
        "sequence": sequence,
        "created_at": "2026-11-20T03:00:00+00:00",
        "model_fingerprint": model_fingerprint,
        "decision_fingerprint": model_fingerprint,
        "models": [],
        "evaluation": [],
        "gate": {"passed": True, "reasons": []},
        "files": files,
    }
