"""`loss: lm_cocktail` against the numbers of the package LM_Cocktail itself; see README.md here."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch
from parity_models import save_all
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tasks.resident
from tasks.checkpoint import describe_folder, list_model_files
from tasks.digests import hash_file
from tasks.losses.measure import measure_losses
from tasks.merge.merge import merge_checkpoints
from tasks.settings import ScoreSettings
from tasks.weigh.loss import compute_merge_weights

HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "deployments" / "demo" / "models"
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
LLM_EXAMPLES = json.loads((HERE / "llm_examples.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    assert save_all(folder) == EXPECTED["digests"], "the random models are not those that the package has measured"
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_resident():
    yield
    tasks.resident._slots.clear()


def find_model(name, places):
    family, _, member = name.partition("-")
    return BUNDLED / family / member if family in ("decoder", "encoder") else places / name


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_losses_and_weights_are_the_packages(case, places):
    rows = LLM_EXAMPLES[case["rows"]] if isinstance(case["rows"], str) else case["rows"]
    arguments = case["arguments"]
    # A copy is not checked again: recipes ask for at least 8 tokens, one case cuts at 3.
    settings = ScoreSettings(loss="lm_cocktail", batch_size=arguments["batch_size"], dtype="float32").model_copy(
        update={"max_length": arguments["max_input_length"]}
    )
    losses = {
        name: fmean(measure_losses(find_model(name, places), case["model_type"], rows, settings, "cpu")[0])
        for name in case["models"]
    }
    assert list(losses.values()) == pytest.approx(case["losses"], abs=1e-5)
    weights = compute_merge_weights(losses, arguments["temperature"])
    assert list(weights.values()) == pytest.approx(case["weights"], abs=1e-5)


def test_a_mixed_reranker_scores_as_the_packages(places, tmp_path):
    expected = EXPECTED["reranker"]
    candidates = [
        describe_folder(
            name, str(folder), folder, {path: hash_file(folder / path) for path in list_model_files(folder)}
        )
        for name in ("reranker-1", "reranker-2")
        for folder in [places / name]
    ]
    weights = dict(zip((candidate.name for candidate in candidates), expected["weights"], strict=True))
    merge_checkpoints(
        candidates[0], candidates, weights, method="linear", dtype="base", max_shard_bytes=10**9,
        template=candidates[0], output=tmp_path / "mixed",
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mixed")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mixed")
    with torch.no_grad():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in expected["pairs"]]
    assert logits == pytest.approx(expected["logits"], abs=1e-5)
