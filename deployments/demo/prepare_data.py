"""Choose the demo's rows from CLINC150, WordNet and Banking77 and write them to `data/`.

    python deployments/demo/prepare_data.py --clinc150 CLINC --wordnet WORDNET --banking77 BANKING

The same sources give the same bytes. The three splits share no text: training rows (`train/`), the rows that a recipe
scores its candidates on (`examples/`) and the rows that results are measured on (`evaluation/`). The script fails
rather than write splits that overlap.
"""

import argparse
import gzip
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from choosing import classification_rows, synset_pairs, synset_retrieval, utterance_pairs, utterance_retrieval
from sources import (
    SPLITS,
    Record,
    drop_shared_texts,
    normalise,
    read_banking77,
    read_clinc150,
    read_wordnet_glosses,
    read_wordnet_synsets,
)
from topics import PROMPTS

logger = logging.getLogger(__name__)

PAIRS = {"train": 4000, "examples": 64}
FILE_NAMES = {
    "train": "train/{task}.jsonl.gz",
    "examples": "examples/{task}.jsonl",
    "evaluation": "evaluation/{task}.jsonl",
}


def check_disjoint(texts: Mapping[str, Iterable[str]]) -> None:
    """Check that no two splits share a text.

    Args:
        texts: Name of a split to all texts of all its tasks, without the prompts around them.

    Raises:
        ValueError: Some splits share texts up to case and white space; the message names the pairs and one text each.
    """
    normalised = {split: {normalise(text) for text in split_texts} for split, split_texts in texts.items()}
    names = list(normalised)
    problems = []
    for position, left in enumerate(names):
        for right in names[position + 1 :]:
            if shared := normalised[left] & normalised[right]:
                problems.append(f"{left} and {right} share {len(shared)} texts, such as {min(shared)!r}")
    if problems:
        raise ValueError("; ".join(problems) + "; every text must lie in one split only")


def choose_files(records: Mapping[str, Mapping[str, Sequence[Record]]]) -> dict[str, list[dict]]:
    """Choose the rows of every file.

    Args:
        records: Name of a source to split to records; `synsets` are WordNet's for retrieval.

    Returns:
        Path of a file, relative to the data folder, to its rows.
    """
    files: dict[str, list[dict]] = {}
    for task in PROMPTS:
        for split, name in FILE_NAMES.items():
            files[name.format(task=task)] = classification_rows(task, records[task][split], split)
        of_retrieval = records["synsets" if task == "wordnet" else task]
        for split, count in PAIRS.items():
            choose = synset_pairs if task == "wordnet" else utterance_pairs
            rows = choose(task, of_retrieval[split], count, split)
            if split == "examples":
                rows = [{key: value for key, value in row.items() if key != "group"} for row in rows]
            files[FILE_NAMES[split].format(task=f"{task}_pairs")] = rows
        held_out = of_retrieval["evaluation"]
        chosen = synset_retrieval(held_out) if task == "wordnet" else utterance_retrieval(task, held_out)
        files |= _beir_files(f"evaluation/{task}_retrieval", *chosen)
    return files


def prepare(clinc150: Path, wordnet: Path, banking77: Path, output: Path) -> None:
    """Read the sources, choose the rows, check them and write them.

    Raises:
        ValueError: The chosen splits share a text.
    """
    sources = {
        "clinc": read_clinc150(clinc150),
        "banking": read_banking77(banking77),
        "wordnet": read_wordnet_glosses(wordnet),
        "synsets": read_wordnet_synsets(wordnet),
    }
    records = {
        name: {split: [record for record in kept if record.split == split] for split in SPLITS}
        for name, kept in drop_shared_texts(sources).items()
    }
    files = choose_files(records)
    check_disjoint({split: _texts(files, split) for split in SPLITS})
    for name, rows in files.items():
        _write(output / name, rows)
        logger.info("%s: %d rows", name, len(rows))


def _beir_files(
    folder: str, documents: Sequence[str], queries: Sequence[str], relevant: Iterable[tuple[int, int]]
) -> dict[str, list[dict]]:
    """Lay out retrieval data as BEIR does."""
    judgements = [{"query-id": f"q{query}", "corpus-id": f"d{document}", "score": 1} for query, document in relevant]
    return {
        f"{folder}/corpus.jsonl": [
            {"_id": f"d{index}", "title": "", "text": text} for index, text in enumerate(documents)
        ],
        f"{folder}/queries.jsonl": [{"_id": f"q{index}", "text": text} for index, text in enumerate(queries)],
        f"{folder}/qrels/test.tsv": judgements,
    }


def _texts(files: Mapping[str, list[dict]], split: str) -> list[str]:
    """Collect what models see of one split, with the prompts of the classification tasks taken off."""
    texts: list[str] = []
    for name, rows in files.items():
        if not name.startswith(f"{split}/"):
            continue
        for row in rows:
            if "input" in row:
                task = name.removeprefix(f"{split}/").split(".")[0]
                before, after = PROMPTS[task].split("{text}")
                texts.append(row["input"].removeprefix(before).removesuffix(after))
            texts += [row[key] for key in ("query", "text") if key in row]
            texts += row.get("pos", []) + row.get("neg", [])
    return texts


def _write(path: Path, rows: Sequence[Mapping]) -> None:
    """Write rows as JSON Lines, compressed for `.gz`, or as a table with a header for `.tsv`."""
    if path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the time of writing in gzip's header the same rows give the same bytes.
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def main() -> None:
    """Read the command line and prepare the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clinc150", type=Path, required=True, help="checkout of CLINC150 (holds data/data_full.json)")
    parser.add_argument("--wordnet", type=Path, required=True, help="gloss_category.jsonl and synonym_gloss.jsonl")
    parser.add_argument("--banking77", type=Path, required=True, help="checkout that holds banking_data/train.csv")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "data", help="default: data/ beside this"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(arguments.clinc150, arguments.wordnet, arguments.banking77, arguments.output)


if __name__ == "__main__":
    main()
