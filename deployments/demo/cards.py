"""The model cards of the demo's models."""

from pathlib import Path

CARD = """\
---
license: apache-2.0
language: en
library_name: {library}
pipeline_tag: {pipeline}
tags: [demo]
---

# {title}

{purpose}

It is a toy of one million parameters that shows what merging does; do not use it for anything else.

- **Trained by** `deployments/demo/train.py --family {family} --seed {seed}`, {start}
- **Rows**: {rows}; see `deployments/demo/data/README.md`.
- **Sources**: word embeddings and vocabulary of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); rows of CLINC150
  (CC BY 3.0), WordNet 3.0 (WordNet licence) and Banking77 (CC BY 4.0).
"""

PURPOSES = {
    "decoder": "A Llama that answers a prompt such as `Request: ...\\nTopic:` with one label word.",
    "encoder": "A BERT that embeds sentences for retrieval; load it with `SentenceTransformer(folder)`.",
}
TASKS = {
    "clinc": "CLINC150 (requests to an assistant)",
    "wordnet": "WordNet (definitions of words)",
    "banking": "Banking77 (questions to a bank)",
}


def write_card(folder: Path, family: str, name: str, seed: int, base_rows: int) -> None:
    """Write README.md: what the model is, what it was trained from and on, and the licences."""
    is_base = name == "base"
    card = CARD.format(
        title=f"Demo {family}: {name if is_base else f'{name} expert'}",
        library="transformers" if family == "decoder" else "sentence-transformers",
        pipeline="text-generation" if family == "decoder" else "sentence-similarity",
        purpose=PURPOSES[family],
        family=family,
        seed=seed,
        start="from MiniLM's word embeddings and random layers." if is_base else "from `base`, whose layout it shares.",
        rows=f"{base_rows} training rows of each of the three tasks"
        if is_base
        else f"all training rows of {TASKS[name]}",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
