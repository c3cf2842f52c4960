"""Read CLINC150, WordNet and Banking77 into records of three splits that share no text."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from topics import BANKING_TOPICS, CLINC_TOPICS, WORDNET_TOPICS

# In the order in which they claim a text: an utterance of the test set that also occurs in the training set is kept
# for evaluation and dropped from training.
SPLITS = ("evaluation", "examples", "train")


@dataclass(frozen=True)
class Record:
    """One row of a source: the text, what it is about, and for WordNet's synsets the words that it defines."""

    split: str
    text: str
    label: str
    intent: str
    words: str = ""

    def texts(self) -> tuple[str, ...]:
        """Every text of the record that a model may see."""
        return (self.text, self.words) if self.words else (self.text,)


def normalise(text: str) -> str:
    """Lower-case and collapse white space, so that copies that differ in neither letters nor order are equal."""
    return " ".join(text.lower().split())


def read_clinc150(folder: Path) -> list[Record]:
    """Read CLINC150's in-scope utterances in their published splits (test, val, train)."""
    data = folder / "data"
    domains = json.loads((data / "domains.json").read_text(encoding="utf-8"))
    label_of_intent = {intent: CLINC_TOPICS[domain] for domain, intents in domains.items() for intent in intents}
    rows = json.loads((data / "data_full.json").read_text(encoding="utf-8"))
    published = {"evaluation": "test", "examples": "val", "train": "train"}
    return [
        Record(split, text.strip(), label_of_intent[intent], intent)
        for split in SPLITS
        for text, intent in rows[published[split]]
    ]


def read_banking77(folder: Path) -> list[Record]:
    """Read Banking77: its test set for evaluation, a tenth of its training set for examples, the rest to train."""
    data = folder / "banking_data"
    test = [_banking_record(lambda _: "evaluation", text, intent) for text, intent in _csv_rows(data / "test.csv")]
    train_split = _hash_split({"examples": 0.1, "train": 0.9})
    return test + [_banking_record(train_split, text, intent) for text, intent in _csv_rows(data / "train.csv")]


def read_wordnet_glosses(folder: Path) -> list[Record]:
    """Read WordNet's glosses with their category; the split is a hash of the gloss, since WordNet publishes none."""
    split_of = _hash_split({"evaluation": 0.3, "examples": 0.1, "train": 0.6})
    rows = [row for row in _jsonl_rows(folder / "gloss_category.jsonl") if row["label"] in WORDNET_TOPICS]
    return [Record(split_of(row["text"]), row["text"], row["label"], row["label"]) for row in rows]


def read_wordnet_synsets(folder: Path) -> list[Record]:
    """Read WordNet's synsets (their words and their gloss) in the order of WordNet, where neighbours are related."""
    split_of = _hash_split({"evaluation": 0.3, "examples": 0.1, "train": 0.6})
    rows = sorted(_jsonl_rows(folder / "synonym_gloss.jsonl"), key=lambda row: row["id"])
    return [Record(split_of(row["pos"][0]), row["pos"][0], "", row["id"], row["query"]) for row in rows]


def drop_shared_texts(sources: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Keep each text in one split only, over all sources, and once only within a source.

    Args:
        sources: Name of a source to its records, in any order of splits.

    Returns:
        The same names and order of records without those whose text (normalised) an earlier split of `SPLITS` has
        claimed in any source, or an earlier record of the same source has used.
    """
    claimed: set[str] = set()
    kept: dict[str, set[Record]] = {name: set() for name in sources}
    for split in SPLITS:
        claimed_by_split: set[str] = set()
        for name, records in sources.items():
            used: set[str] = set()
            for record in records:
                texts = {normalise(text) for text in record.texts()}
                if record.split == split and claimed.isdisjoint(texts) and used.isdisjoint(texts):
                    kept[name].add(record)
                    used |= texts
            claimed_by_split |= used
        claimed |= claimed_by_split
    return {name: [record for record in records if record in kept[name]] for name, records in sources.items()}


def _hash_split(shares: dict[str, float]) -> Callable[[str], str]:
    """Return a function from a text to a split, the same in every run, in the proportion of `shares`."""

    def split_of(text: str) -> str:
        position = int.from_bytes(hashlib.sha256(normalise(text).encode()).digest()[:8], "big") / 2**64
        for split, share in shares.items():
            if position < share:
                return split
            position -= share
        return next(reversed(shares))

    return split_of


def _banking_record(split_of: Callable[[str], str], text: str, intent: str) -> Record:
    text = " ".join(text.split())
    return Record(split_of(text), text, BANKING_TOPICS[intent], intent)


def _csv_rows(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["text"], row["category"]


def _jsonl_rows(path: Path) -> Iterable[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
