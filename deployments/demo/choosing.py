"""Choose rows from the records of a source: classification, pairs to train on and retrieval to evaluate on.

The same records give the same rows: every choice draws from a generator seeded by what is chosen.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sources import Record
from topics import PROMPTS

CLASSIFICATION_ROWS = {"train": 4000, "examples": 64, "evaluation": 500}
# Documents and queries per intent: about 1,200 documents and 450 queries for each task.
RETRIEVAL_SIZES = {"clinc": (8, 3), "banking": (15, 6)}
WORDNET_DOCUMENTS, WORDNET_QUERIES = 1500, 500
# WordNet's synsets are sorted by kind, so a gloss at most this many rows away is a plausible wrong answer.
WORDNET_NEIGHBOURS = 20
SEED = 0


def classification_rows(task: str, records: Sequence[Record], split: str) -> list[dict]:
    """Choose rows of one split, as evenly over the labels as the source allows."""
    chosen = _round_robin(records, CLASSIFICATION_ROWS[split], key=f"{task} {split}", by="label")
    return [{"input": PROMPTS[task].format(text=record.text), "output": record.label} for record in chosen]


def utterance_pairs(task: str, records: Sequence[Record], count: int, split: str) -> list[dict]:
    """Pair utterances of one intent; the negative is an utterance of another intent with the same label.

    The rows go round the intents, so that 64 rows in sequence hold no intent twice.
    """
    rng = random.Random(f"{SEED} {task} {split}")
    by_intent, by_label = _group(records, "intent"), _group(records, "label")
    rows = []
    paired = [record for record in records if len(by_intent[record.intent]) > 1]
    for query in _round_robin(paired, count, key=f"{task} {split}", by="intent"):
        positive = rng.choice([record for record in by_intent[query.intent] if record is not query])
        negative = rng.choice([record for record in by_label[query.label] if record.intent != query.intent])
        rows.append({"query": query.text, "pos": [positive.text], "neg": [negative.text], "group": query.intent})
    return rows


def synset_pairs(task: str, records: Sequence[Record], count: int, split: str) -> list[dict]:
    """Pair the words of a synset with its gloss; the negative is the gloss of a neighbour in WordNet's order."""
    rng = random.Random(f"{SEED} {task} {split}")
    rows = []
    for position in rng.sample(range(len(records)), count):
        window = range(max(0, position - WORDNET_NEIGHBOURS), min(len(records), position + WORDNET_NEIGHBOURS))
        negative = records[rng.choice([other for other in window if other != position])]
        query = records[position]
        rows.append({"query": query.words, "pos": [query.text], "neg": [negative.text], "group": query.intent})
    return rows


def utterance_retrieval(task: str, records: Sequence[Record]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Choose documents and queries per intent; a document is relevant to the queries of its intent.

    Returns:
        Documents, queries, and pairs (query index, index of a relevant document).
    """
    documents_per_intent, queries_per_intent = RETRIEVAL_SIZES[task]
    rng = random.Random(f"{SEED} {task} retrieval")
    documents: list[str] = []
    queries: list[str] = []
    relevant: list[tuple[int, int]] = []
    for _, utterances in sorted(_group(records, "intent").items()):
        chosen = rng.sample(utterances, min(len(utterances), documents_per_intent + queries_per_intent))
        for query in chosen[:queries_per_intent]:
            first = len(documents)
            relevant += [(len(queries), first + offset) for offset in range(len(chosen) - queries_per_intent)]
            queries.append(query.text)
        documents += [record.text for record in chosen[queries_per_intent:]]
    return documents, queries, relevant


def synset_retrieval(records: Sequence[Record]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Choose glosses as documents and the words of some of them as queries: one relevant document per query."""
    chosen = random.Random(f"{SEED} wordnet retrieval").sample(list(records), WORDNET_DOCUMENTS)
    queries = [record.words for record in chosen[:WORDNET_QUERIES]]
    return [record.text for record in chosen], queries, [(index, index) for index in range(WORDNET_QUERIES)]


def _group(records: Iterable[Record], by: str) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[getattr(record, by)].append(record)
    return groups


def _round_robin(records: Sequence[Record], count: int, key: str, by: str) -> list[Record]:
    """Choose `count` records, one of each group in turn in random order; a group that runs out is passed over.

    Raises:
        ValueError: There are fewer than `count` records.
    """
    if len(records) < count:
        raise ValueError(f"{key}: {count} rows are wanted and the sources have {len(records)}")
    rng = random.Random(f"{SEED} {key}")
    groups = [rng.sample(group, len(group)) for _, group in sorted(_group(records, by).items())]
    chosen: list[Record] = []
    while len(chosen) < count:
        rng.shuffle(groups)
        chosen += [group.pop() for group in groups if group]
    return chosen[:count]
