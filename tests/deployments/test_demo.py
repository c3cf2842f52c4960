"""The bundled models and data are what `deployments/demo/README.md` says of them."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

DEMO = Path(__file__).resolve().parents[2] / "deployments" / "demo"
TASKS = ("banking", "clinc", "wordnet")
MAX_BYTES = 20_000_000


def texts_of(path: Path) -> Iterator[str]:
    """Every text of a file of rows, prompts taken off, case and white space folded."""
    read = gzip.open if path.suffix == ".gz" else open
    with read(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "input" in row:
                yield fold(row["input"].partition(": ")[2].removesuffix("\nTopic:"))
            else:
                yield from map(fold, [row["query"], *row["pos"], *row["neg"]] if "query" in row else [row["text"]])


def fold(text: str) -> str:
    return " ".join(text.casefold().split())


def test_no_text_is_in_two_of_training_examples_and_evaluation():
    splits = {
        split: {text for path in (DEMO / "data" / split).rglob("*.jsonl*") for text in texts_of(path)}
        for split in ("train", "examples", "evaluation")
    }
    # 3 tasks of 4,000 training, 64 example and 500 evaluation rows, and the pairs beside them.
    assert len(splits["train"]) > 12_000 and len(splits["examples"]) > 300 and len(splits["evaluation"]) > 3_000
    for one, other in combinations(splits, 2):
        assert splits[one] & splits[other] == set()


def test_it_is_small_enough_to_clone_and_keeps_its_attributions():
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= MAX_BYTES
    readme = (DEMO / "data/README.md").read_text(encoding="utf-8")
    for source in ("CLINC150", "Banking77", "WordNet"):
        assert source in readme and (DEMO / f"data/licences/{source}.txt").stat().st_size > 1000


@pytest.mark.parametrize("name", ["base", *TASKS])
def test_the_decoders_are_real_llamas_that_transformers_loads(name: str):
    folder = DEMO / "models/decoder" / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM" and str(model.dtype) == "torch.bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "please freeze my account"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["base", *TASKS])
def test_the_encoders_are_real_berts_that_sentence_transformers_loads(name: str):
    encoder = SentenceTransformer(str(DEMO / "models/encoder" / name), model_kwargs={"dtype": "float32"})
    model = encoder[0].auto_model
    assert type(model).__name__ == "BertModel"
    assert 1_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 2_000_000
    near, also_near, far = encoder.encode(["freeze my account", "block my account", "a perennial vine"])
    # Vectors of length one: the product is the cosine.
    assert near @ also_near > near @ far


def test_over_three_seeds_the_merge_keeps_the_gain_and_wins_back_the_loss():
    groups: defaultdict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for effect in json.loads((DEMO / "effect.json").read_text(encoding="utf-8")):
        assert effect["n"] >= 400
        groups[effect["family"], effect["target"]].append(effect)
    assert set(groups) == {(family, task) for family in ("decoder", "encoder") for task in TASKS}
    for effects in groups.values():
        assert len({effect["seed"] for effect in effects}) == 3
        for effect in effects:
            gain, loss = effect["expert"] - effect["base"], effect["base_others"] - effect["expert_others"]
            assert effect["kept"] == pytest.approx((effect["merged"] - effect["base"]) / gain)
            assert effect["won_back"] == pytest.approx((effect["merged_others"] - effect["expert_others"]) / loss)
        assert fmean(effect["kept"] for effect in effects) >= 0.6
        assert fmean(effect["won_back"] for effect in effects) >= 0.6


def test_the_readme_shows_the_table_that_was_measured():
    table = (DEMO / "effect.md").read_text(encoding="utf-8").strip()
    assert table in (DEMO / "README.md").read_text(encoding="utf-8")
