"""Write expected.json: what the package LM_Cocktail itself computes, in an environment of its own.

PyPI has LM_Cocktail up to 0.0.4; the encoder-decoder loss came with 0.0.5, which is in its repository. From the root of
this repository:

    python3.11 -m venv /tmp/lm-cocktail
    /tmp/lm-cocktail/bin/pip install torch==2.13.0 transformers==4.46.3 sentence-transformers==3.4.1 datasets accelerate
    git clone https://github.com/FlagOpen/FlagEmbedding /tmp/FlagEmbedding
    git -C /tmp/FlagEmbedding checkout 7ed43d67ec03fbe5c31c0992dbfa941fb1860549
    /tmp/lm-cocktail/bin/pip install --no-deps /tmp/FlagEmbedding/research/LM_Cocktail
    PYTHONPATH=tests/helpers /tmp/lm-cocktail/bin/python tests/parity/make_expected.py

The file that lies here was made with 0.0.4 of PyPI, to which the encoder-decoder functions of that commit were added;
the functions of decoders and encoders are the same in both.

transformers 4 loads every checkpoint in float32, as the package's users had it. The bundled tokenizers name a class of
transformers 5, which is changed in a copy; the losses do not depend on it.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import LM_Cocktail.utils as package
import torch
import transformers
from LM_Cocktail import mix_models
from parity_models import ANSWERS, PAIRS, save_all
from transformers import AutoTokenizer

HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "deployments" / "demo" / "models"
BUNDLED_PAIRS = HERE.parents[1] / "deployments" / "demo" / "data" / "examples" / "banking_pairs.jsonl"
NAMES = ("base", "banking", "clinc", "wordnet")
LLM_EXAMPLES = json.loads((HERE / "llm_examples.json").read_text(encoding="utf-8"))
LOSSES = ("llm_loss", "embedder_loss", "seq2seq_loss")


def main() -> None:
    """Compute all cases and write them beside this file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        places = Path(folder)
        digests = save_all(places)
        for family in ("decoder", "encoder"):
            for name in NAMES:
                copy_bundled(family, name, places)
        content = {
            "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
            "digests": digests,
            "cases": [compute(case, places) for case in list_cases()],
            "reranker": mix_rerankers(places),
        }
    (HERE / "expected.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_bundled(family: str, name: str, places: Path) -> None:
    """A bundled model whose tokenizer transformers 4 can name."""
    goal = shutil.copytree(BUNDLED / family / name, places / f"{family}-{name}")
    config = goal / "tokenizer_config.json"
    content = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(content))


def list_cases() -> list[dict[str, Any]]:
    """What is computed: models, rows and arguments."""
    bundled = {family: [f"{family}-{name}" for name in NAMES] for family in ("decoder", "encoder")}
    pairs = [json.loads(line) for line in BUNDLED_PAIRS.read_text(encoding="utf-8").splitlines()][:7]
    cases = [case(task, "decoder", bundled["decoder"], task) for task in LLM_EXAMPLES]
    # Some answers are cut off whole, but none of a whole batch.
    cases.append(case("cut", "decoder", bundled["decoder"], "ag_news", max_input_length=124))
    cases += [
        case(
            f"pairs by {size}", "encoder", bundled["encoder"], pairs, batch_size=size, max_input_length=48, neg_number=1
        )
        for size in (2, 5)
    ]
    cases += [
        case("bert", "encoder", ["bert-1", "bert-2"], list(PAIRS), neg_number=3, max_input_length=64),
        case("t5", "encoder-decoder", ["t5-1", "t5-2"], list(ANSWERS)),
        case("t5 cut", "encoder-decoder", ["t5-1", "t5-2"], list(ANSWERS), batch_size=3, max_input_length=3),
    ]
    return cases


def case(name: str, model_type: str, models: list[str], rows: list[Any] | str, **arguments: int) -> dict[str, Any]:
    """One call of `mix_models_with_data`, with the package's defaults; rows may be those of a task in llm_examples."""
    defaults = {"batch_size": 2, "max_input_length": 2048, "temperature": 5.0}
    return {"name": name, "model_type": model_type, "models": models, "rows": rows, "arguments": defaults | arguments}


def compute(case: dict[str, Any], places: Path) -> dict[str, Any]:
    """The case with the package's losses and weights."""
    folders = [str(places / name) for name in case["models"]]
    model = package.load_model(folders[0], model_type=case["model_type"])
    assert next(model.parameters()).dtype == torch.float32
    tensors = package.get_model_param_list(folders, model_type=case["model_type"])
    rows = LLM_EXAMPLES[case["rows"]] if isinstance(case["rows"], str) else case["rows"]
    losses: list[float] = []
    originals = {name: getattr(package, name) for name in LOSSES}
    for name, original in originals.items():
        setattr(package, name, recording(original, losses))
    weights = package.compute_weights(
        model.eval(), AutoTokenizer.from_pretrained(folders[0]), tensors, case["model_type"], rows,
        **case["arguments"],
    )  # fmt: skip
    for name, original in originals.items():
        setattr(package, name, original)
    return case | {"losses": losses, "weights": weights}


def recording(compute_loss: Any, losses: list[float]) -> Any:
    """The function, with what it returns noted: the package keeps its losses to itself."""

    def run(**arguments: Any) -> float:
        losses.append(compute_loss(**arguments))
        return losses[-1]

    return run


def mix_rerankers(places: Path) -> dict[str, Any]:
    """Scores of a reranker that the package has mixed; it measures none."""
    folders = [str(places / name) for name in ("reranker-1", "reranker-2")]
    model = mix_models(folders, "reranker", [0.3, 0.7]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    pairs = [(row["query"], text) for row in PAIRS for text in (*row["pos"], *row["neg"])]
    with torch.no_grad():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in pairs]
    return {"weights": [0.3, 0.7], "pairs": pairs, "logits": logits}


if __name__ == "__main__":
    main()
