import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.data.examples import digest_rows
from tasks.errors import ExampleDataError, NonFiniteError
from tasks.evaluate.classification import choose_labels, classify

LIMITS = (64, "float32", 200)
"""max_length, dtype, batch_tokens; the last makes several batches."""


def write_rows(path: Path, labels: list[str], n: int = 40) -> tuple[str, str, list[dict[str, str]]]:
    draw = random.Random(0)
    rows = [
        {"input": " ".join(draw.choices([f"w{i}" for i in range(30)], k=draw.randint(1, 12))), "output": label}
        for label in draw.choices(labels, k=n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path), digest_rows(rows), rows


def likelihoods_one_by_one(folder: Path, rows: list[dict[str, str]], labels: list[str]) -> numpy.ndarray:
    """(n_rows, n_labels): a forward pass per row and label, without batches, padding or anything of ours."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    table = numpy.zeros((len(rows), len(labels)))
    for i, row in enumerate(rows):
        for j, label in enumerate(labels):
            ids = tokenizer(f"{row['input']} {label}")["input_ids"]
            n_label = len(label.split())  # whole words are tokens
            with torch.no_grad():
                log_probabilities = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            table[i, j] = sum(float(log_probabilities[p - 1, ids[p]]) for p in range(len(ids) - n_label, len(ids)))
    return table


@pytest.mark.parametrize("labels", [["blue", "green", "red"], ["blue", "red", "very green", "very red"]])
def test_the_label_with_the_highest_likelihood_wins(decoder_folder: Path, tmp_path: Path, labels: list[str]):
    path, digest, rows = write_rows(tmp_path / "rows.jsonl", labels)
    values = classify("cpu", str(decoder_folder), path, digest, *LIMITS)
    table = likelihoods_one_by_one(decoder_folder, rows, labels)
    expected = [float(labels[best] == row["output"]) for best, row in zip(table.argmax(axis=1), rows, strict=True)]
    assert values == expected
    assert 0 < sum(values) < len(values)


def test_batches_change_nothing(decoder_folder: Path, tmp_path: Path):
    path, digest, _ = write_rows(tmp_path / "rows.jsonl", ["blue", "green", "red"])
    one_by_one = classify("cpu", str(decoder_folder), path, digest, 64, "float32", 1)
    assert classify("cpu", str(decoder_folder), path, digest, 64, "float32", 10_000) == one_by_one


def test_between_equally_likely_labels_the_first_wins():
    assert choose_labels(numpy.array([[-2.0, -1.0, -1.0], [-1.0, -1.0, -3.0], [-3.0, -2.0, -1.0]])) == [1, 0, 2]


def test_a_model_that_never_tells_labels_apart_is_broken():
    with pytest.raises(NonFiniteError, match="every label is equally likely in every row"):
        choose_labels(numpy.full((3, 2), -0.7))


def test_data_with_one_label_is_refused(decoder_folder: Path, tmp_path: Path):
    path, digest, _ = write_rows(tmp_path / "rows.jsonl", ["blue"])
    with pytest.raises(ExampleDataError, match=r"rows.jsonl: every row has the output 'blue'"):
        classify("cpu", str(decoder_folder), path, digest, *LIMITS)


def test_data_that_changed_since_the_plan_is_refused(decoder_folder: Path, tmp_path: Path):
    path, digest, _ = write_rows(tmp_path / "rows.jsonl", ["blue", "red"])
    write_rows(tmp_path / "rows.jsonl", ["red", "blue"])
    with pytest.raises(ExampleDataError, match=r"rows.jsonl: the data has changed since the run was planned"):
        classify("cpu", str(decoder_folder), path, digest, *LIMITS)


def test_a_label_over_the_limit_names_the_file_and_how_rows_are_counted(decoder_folder: Path, tmp_path: Path):
    path, digest, _ = write_rows(tmp_path / "rows.jsonl", ["blue", "very " * 9 + "red"])
    with pytest.raises(ExampleDataError, match="counting each row 2 times, once per label: 40 of 80 answers"):
        classify("cpu", str(decoder_folder), path, digest, 8, "float32", 200)
