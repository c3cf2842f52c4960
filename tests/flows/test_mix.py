"""Every example of the LM_Cocktail README, with the bundled models in place of those on the Hub, and what is around it.

Source of the calls: https://github.com/FlagOpen/FlagEmbedding/tree/master/research/LM_Cocktail#usage
"""

import inspect
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from mixing import ANSWERS, ROWS, assert_same, mix_by_hand, save_family, save_reranker
from safetensors.torch import load_file
from seeding import put_on_hub
from tiny_models import save_decoder
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from flows.mix import mix_models, mix_models_by_layers, mix_models_with_data
from tasks.errors import CheckpointError, PreflightError, StoreError
from tests.flows.conftest import DEMO

MODELS = DEMO / "models"
STAND_INS = {
    "meta-llama/Llama-2-7b-chat-hf": MODELS / "decoder/base",
    "Shitao/llama2-ag-news": MODELS / "decoder/clinc",
    "Shitao/llama2-nq": MODELS / "decoder/wordnet",
    "BAAI/bge-base-en-v1.5": MODELS / "encoder/base",
    "Shitao/bge-hotpotqa": MODELS / "encoder/clinc",
    "Shitao/bge-quora": MODELS / "encoder/wordnet",
    "Shitao/bge-msmarco": MODELS / "encoder/banking",
}

pytestmark = pytest.mark.usefixtures("scores_here")


def stand_ins(*names: str) -> list[str]:
    """Folders of bundled models for the README's names on the Hub."""
    return [str(STAND_INS[name]) for name in names]


@pytest.fixture(autouse=True)
def work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The README's examples.


@pytest.mark.parametrize("mix", [mix_models, mix_models_by_layers])
def test_readme_mixes_language_models_with_given_weights(mix):
    names = stand_ins("meta-llama/Llama-2-7b-chat-hf", "Shitao/llama2-ag-news")
    model = mix(model_names_or_paths=names, model_type="decoder", weights=[0.7, 0.3], output_path="./mixed_llm")
    expected = mix_by_hand([Path(name) for name in names], [0.7, 0.3])
    assert_same(load_file("mixed_llm/model.safetensors"), expected)
    assert_same(model.state_dict(), expected)
    saved = AutoModelForCausalLM.from_pretrained("./mixed_llm")
    question = AutoTokenizer.from_pretrained("./mixed_llm")("play some music", return_tensors="pt")
    assert type(model) is type(saved)
    assert torch.equal(model(**question).logits, saved(**question).logits)


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (("BAAI/bge-base-en-v1.5", "Shitao/bge-hotpotqa"), [0.5, 0.5]),
        (
            ("BAAI/bge-base-en-v1.5", "Shitao/bge-hotpotqa", "Shitao/bge-quora", "Shitao/bge-msmarco"),
            [0.3, 0.2, 0.2, 0.3],
        ),
    ],
)
def test_readme_mixes_embedding_models(names, weights):
    from sentence_transformers import SentenceTransformer

    folders = stand_ins(*names)
    model = mix_models(
        model_names_or_paths=folders, model_type="encoder", weights=weights, output_path="./mixed_embedder"
    )
    assert type(model) is type(AutoModel.from_pretrained(folders[0]))
    assert_same(model.state_dict(), mix_by_hand([Path(folder) for folder in folders], weights))
    embedder = SentenceTransformer("./mixed_embedder", device="cpu")
    assert [type(module).__name__ for module in embedder] == ["Transformer", "Pooling", "Normalize"]
    assert embedder.encode(["a text"]).shape == (1, 128)


def test_readme_mixes_a_reranker_with_itself(caplog):
    reranker = str(save_reranker(Path("bge-reranker-base"), 1))
    model = mix_models(
        model_names_or_paths=[reranker, reranker],
        model_type="reranker",
        weights=[0.5, 0.5],
        output_path="./mixed_reranker",
    )
    assert_same(model.state_dict(), load_file("bge-reranker-base/model.safetensors"))
    assert isinstance(AutoModelForSequenceClassification.from_pretrained("./mixed_reranker"), type(model))
    assert "are one and the same model" in caplog.text


def test_readme_mixes_language_models_with_examples():
    example_data = [
        {
            "input": "Question: when was the last time anyone was on the moon? Answer:\n",
            "output": "14 December 1972 UTC",
        },
        {
            "input": 'Review: "it \'s a charming and often affecting journey . " Is this movie review sentence '
            "negative or positive?\n",
            "output": "Positive",
        },
    ]
    names = stand_ins("meta-llama/Llama-2-7b-chat-hf", "Shitao/llama2-ag-news", "Shitao/llama2-nq")
    model = mix_models_with_data(
        model_names_or_paths=names, model_type="decoder", example_data=example_data, temperature=5.0
    )
    losses = [part.loss for part in model.mix_report.models]
    assert all(5 < loss < 12 for loss in losses) and len(set(losses)) == 3
    assert model.mix_report.weights == pytest.approx(softmax([-loss / 5.0 for loss in losses]), abs=1e-12)
    assert_same(model.state_dict(), mix_by_hand([Path(name) for name in names], model.mix_report.weights))


def test_readme_mixes_embedding_models_with_examples():
    example_data = [
        {
            "query": "How does one become an actor in the Telugu Film Industry?",
            "pos": [" How do I become an actor in Telugu film industry?"],
            "neg": [
                " What is the story of Moses and Ramesses?",
                " Does caste system affect economic growth of India?",
            ],
        },
        {
            "query": "Why do some computer programmers develop amazing software or new concepts, while some are stuck "
            "with basic programming work?",
            "pos": [
                " Why do some computer programmers develops amazing softwares or new concepts, while some are stuck "
                "with basics programming works?"
            ],
            "neg": [
                " When visiting a friend, do you ever think about what would happen if you did something wildly "
                "inappropriate like punch them or destroy their furniture?",
                " What is the difference between a compliment and flirting?",
            ],
        },
    ]
    names = stand_ins("BAAI/bge-base-en-v1.5", "Shitao/bge-hotpotqa", "Shitao/bge-quora")
    model = mix_models_with_data(
        model_names_or_paths=names,
        model_type="encoder",
        example_data=example_data,
        temperature=5.0,
        max_input_length=512,
        neg_number=2,
    )
    losses = [part.loss for part in model.mix_report.models]
    assert model.mix_report.weights == pytest.approx(softmax([-loss / 5.0 for loss in losses]), abs=1e-12)
    assert_same(model.state_dict(), mix_by_hand([Path(name) for name in names], model.mix_report.weights))


def test_readme_mixes_the_mixed_model_with_the_target():
    """Its first application: weights for the base and the peers from examples, then half of the target."""
    target, *others = stand_ins("Shitao/llama2-nq", "meta-llama/Llama-2-7b-chat-hf", "Shitao/llama2-ag-news")
    mix_models_with_data(others, "decoder", [{"input": "Topic:", "output": "music"}], output_path="./mix")
    model = mix_models(["./mix", target], "decoder", [0.5, 0.5], "./final")
    assert_same(model.state_dict(), mix_by_hand([Path("mix"), Path(target)], [0.5, 0.5]))
    parts = json.loads(Path("final/mix.json").read_text())["models"]
    assert [Path(part["model"]).name for part in parts] == ["mix", "wordnet"]


def softmax(values):
    return [math.exp(value) / math.fsum(map(math.exp, values)) for value in values]


# What stands around them.


def test_names_order_and_defaults_of_the_arguments_are_those_of_the_package():
    given = "model_names_or_paths, model_type, weights, output_path=None"
    with_data = (
        "model_names_or_paths, model_type, example_data, temperature=5.0, batch_size=2, max_input_length=2048, "
        "neg_number=7, output_path=None"
    )
    expected = {mix_models: given, mix_models_by_layers: given, mix_models_with_data: with_data}
    for function, text in expected.items():
        positional = [
            parameter.replace(annotation=parameter.empty)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        assert str(inspect.Signature(positional)) == f"({text})"


def test_a_folder_is_found_as_from_pretrained_finds_it(monkeypatch):
    save_decoder(Path("org/model"), 1)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    paths = ["org/model", "./org/model", Path("org/model"), "~/org/model"]
    model = mix_models(paths, "decoder", [0.25] * 4)
    assert {part.model for part in model.mix_report.models} == {str(Path("org/model").resolve())}


def test_names_on_the_hub_are_downloaded(hub: HubServer):
    models = save_family(Path("family"), "decoder")
    names = [f"org/{Path(model).name}" for model in models]
    for name, model in zip(names, models, strict=True):
        put_on_hub(hub, name, Path(model))
    mixed = mix_models(names, "decoder", [0.5, 0.5], "./mixed", cache="cache")
    assert [part.model for part in mixed.mix_report.models] == names
    assert_same(load_file("mixed/model.safetensors"), mix_by_hand(models, [0.5, 0.5]))
    hub.requests.clear()
    mix_models(names, "decoder", [0.9, 0.1], cache="cache")
    # Once to plan and once to fetch what is here already; never a byte of the weights again.
    assert {request.route for request in hub.requests} == {"model_info"}


def test_a_name_that_is_nowhere_is_told(hub: HubServer):
    with pytest.raises(PreflightError, match=r"org/other@v2: there is no such repository, or it is private"):
        mix_models(["org/other@v2"], "decoder", [1.0])
    with pytest.raises(ValueError, match=r"there is no folder 'gpt2' in .*and it is no name on the Hub \(org/name\)"):
        mix_models(["gpt2"], "decoder", [1.0])
    with pytest.raises(PreflightError, match="no such folder"):
        mix_models(["./missing"], "decoder", [1.0])


def test_models_that_do_not_descend_from_one_base_are_mixed_with_a_warning(caplog):
    models = [save_decoder(Path("one"), 1), save_decoder(Path("two"), 2)]
    report = mix_models(models, "decoder", [0.5, 0.5]).mix_report
    assert "2-two" in report.warnings[0] and "does not descend from the base" in report.warnings[0]
    assert report.warnings[0] in caplog.text


def test_what_was_mixed_is_logged_once(caplog):
    caplog.set_level(logging.INFO, "flows.mix")
    models = save_family(Path("family"), "decoder")
    mix_models_with_data(models, "decoder", ANSWERS)
    mine = [record.getMessage() for record in caplog.records if record.name == "flows.mix"]
    assert len(mine) == 1 and mine[0].count("(loss ") == 2


def test_an_earlier_mix_is_replaced_and_nothing_else_is():
    models = save_family(Path("family"), "decoder")
    mix_models(models, "decoder", [0.5, 0.5], "./mixed")
    (Path("mixed") / "left.txt").touch()
    mix_models(models, "decoder", [0.9, 0.1], "./mixed")
    assert_same(load_file("mixed/model.safetensors"), mix_by_hand(models, [0.9, 0.1]))
    assert not Path("mixed/left.txt").exists()
    Path("mixed/mix.json").unlink()
    with pytest.raises(CheckpointError, match="mixed: the folder is not empty"):
        mix_models(models, "decoder", [0.5, 0.5], "./mixed")
    with pytest.raises(ValueError, match=r"output_path: .*base is one of the models"):
        mix_models(models, "decoder", [0.5, 0.5], models[0])
    assert sorted(path.name for path in Path().iterdir()) == ["family", "mixed"]


def test_an_output_that_cannot_take_its_place_leaves_the_earlier_mix(monkeypatch):
    models = save_family(Path("family"), "decoder")
    mix_models(models, "decoder", [0.5, 0.5], "./mixed")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("flows.mix.commit", refuse)
    with pytest.raises(StoreError, match=r"mixed: cannot be written: .*Permission denied"):
        mix_models(models, "decoder", [0.9, 0.1], "./mixed")
    assert_same(load_file("mixed/model.safetensors"), mix_by_hand(models, [0.5, 0.5]))
    assert sorted(path.name for path in Path().iterdir()) == ["family", "mixed"]


def test_a_model_that_is_not_saved_has_the_name_of_the_first():
    models = save_family(Path("family"), "decoder")
    assert mix_models(models, "decoder", [0.5, 0.5]).name_or_path == str(models[0].resolve())
    assert mix_models(models, "decoder", [0.5, 0.5], "mixed").name_or_path == "mixed"


def test_the_dtype_of_the_mixed_model_can_be_chosen():
    models = save_family(Path("family"), "decoder")
    assert mix_models(models, "decoder", [0.5, 0.5], dtype="bfloat16").dtype == torch.bfloat16
    assert mix_models(models, "decoder", [0.5, 0.5]).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one", "decoder", [1.0]), "model_names_or_paths: expected a list of models, found 'one'"),
        (([], "decoder", []), r"model_names_or_paths: expected a list of models, found \[\]"),
        ((["."], "llm", [1.0]), "model_type: expected one of decoder, encoder, reranker, encoder-decoder; found 'llm'"),
        ((["."], "decoder", [0.5, 0.5]), r"weights: expected one per model \(1\), found 2"),
        ((["."], "decoder", [math.nan]), "weights: expected finite numbers"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        mix_models(*arguments)


def test_data_and_numbers_that_make_no_sense_are_refused_at_once():
    with pytest.raises(ValueError, match="example_data: expected at least one row") as error:
        mix_models_with_data(["."], "decoder", [], temperature=0, batch_size=0, neg_number=0)
    for part in ("temperature: expected a positive", "batch_size: expected at least 1", "neg_number: expected"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="example_data: expected a list of rows"):
        mix_models_with_data(["."], "decoder", "examples.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected rows that are dicts"):
        mix_models_with_data(["."], "decoder", ["a row"])  # pyright: ignore[reportArgumentType]


def test_rows_of_another_type_are_named_by_number():
    models = save_family(Path("family"), "encoder")
    with pytest.raises(PreflightError, match=r"row 2: expected text in 'query'"):
        mix_models_with_data(models, "encoder", [ROWS["encoder"][0], ANSWERS[0]])


def test_the_package_s_own_loss_is_a_mean_of_batches_and_knows_no_rerankers():
    models = stand_ins("meta-llama/Llama-2-7b-chat-hf", "Shitao/llama2-ag-news")
    rows = [
        {"input": "Topic:", "output": "music"},
        {"input": "Topic:", "output": "travel"},
        {"input": "a", "output": "b"},
    ]
    by_size = {
        size: mix_models_with_data(models, "decoder", rows, batch_size=size, loss="lm_cocktail").mix_report
        for size in (1, 2)
    }
    assert by_size[1].loss == "lm_cocktail"
    assert by_size[1].weights != by_size[2].weights
    with pytest.raises(ValueError, match="LM_Cocktail measures no rerankers"):
        mix_models_with_data(models, "reranker", ROWS["reranker"], loss="lm_cocktail")


def test_a_real_worker_scores_the_models_and_the_calling_script_needs_no_guard(tmp_path):
    """A script without `if __name__ == "__main__"`, as LM-Cocktail's users write them; no server is started."""
    script = f"""
import json, sys
from flows.mix import mix_models_with_data

model = mix_models_with_data({stand_ins("meta-llama/Llama-2-7b-chat-hf", "Shitao/llama2-ag-news")!r}, "decoder",
    [{{"input": "Topic:", "output": "music"}}], devices=["cpu:0"], cache="cache")
print(json.dumps([model.mix_report.weights, "prefect" in sys.modules]))
"""
    Path("script.py").write_text(script)
    # Device locks lie in the folder for temporary files; in one of its own, no other run is waited for.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "script.py"], env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    weights, knows_prefect = json.loads(found.stdout)
    assert sum(weights) == pytest.approx(1) and weights[0] != weights[1]
    assert not knows_prefect
