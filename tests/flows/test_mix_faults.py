"""What happens here where LM_Cocktail (PyPI package and its sources) goes wrong.

The comments number its 20 faults; each test would fail if ours had the fault.
"""

import json
import os
import random
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mixing import (
    ANSWERS,
    PAIRS,
    ROWS,
    assert_same,
    change,
    change_json,
    fine_tune,
    mix_by_hand,
    save_family,
)
from safetensors.torch import load_file
from tiny_models import save_decoder, save_encoder
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.mix import mix_models, mix_models_by_layers, mix_models_with_data
from tasks.errors import NonFiniteError, PreflightError

pytestmark = pytest.mark.usefixtures("scores_here")
TYPES = ("decoder", "encoder", "reranker", "encoder-decoder")


@pytest.fixture(autouse=True)
def work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()


def losses_of(models, model_type, rows, **arguments):
    """Loss of each model, from a cache of this call alone."""
    cache = Path("caches") / f"{len(list(Path('.').glob('caches/*')))}"
    cache.mkdir(parents=True)
    model = mix_models_with_data(models, model_type, rows, cache=cache, **arguments)
    return [part.loss for part in model.mix_report.models]


def files_in(*folders):
    return [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]


# 1. A reranker cannot be mixed by layers; its temporary copies of all models stay behind.
# 13. "By layers" holds the whole result in memory twice and returns a model with accelerate's hooks.
@pytest.mark.parametrize("model_type", TYPES)
def test_by_layers_is_the_same_mix_and_leaves_nothing_behind(model_type):
    models = save_family(Path("family"), model_type)
    model = mix_models_by_layers(models, model_type, [0.7, 0.3])
    assert_same(model.state_dict(), mix_by_hand(models, [0.7, 0.3]))
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    assert files_in("temporary", Path(os.environ["XDG_CACHE_HOME"]) / "lm-cocktail-flows" / "work") == []


def test_a_mix_that_fails_leaves_nothing_behind():
    models = save_family(Path("family"), "decoder")
    change(models[1], model__norm__weight=torch.full((16,), torch.nan))
    for output in (None, "mixed"):
        with pytest.raises(NonFiniteError, match=r"model\.norm\.weight.*2-expert2"):
            mix_models_by_layers(models, "decoder", [0.7, 0.3], output)
    assert files_in("temporary", Path(os.environ["XDG_CACHE_HOME"]) / "lm-cocktail-flows" / "work") == []
    assert sorted(path.name for path in Path().iterdir()) == ["family", "temporary"]


# 2. A prompt as long as the limit gives the loss NaN, all weights NaN, and a model of NaN that is saved without a word.
def test_a_prompt_over_the_limit_loses_its_beginning_and_keeps_its_answer():
    models = save_family(Path("family"), "decoder")
    rows = [{"input": "question " + "a b c d " * 10, "output": "yes"}]
    model = mix_models_with_data(models, "decoder", rows, max_input_length=12, output_path="mixed")
    assert any("lose the beginning of their prompt" in warning for warning in model.mix_report.warnings)
    assert all(part.loss and 0 < part.loss < 20 for part in model.mix_report.models)
    assert all(tensor.isfinite().all() for tensor in load_file("mixed/model.safetensors").values())
    # Only the last tokens are seen: another beginning changes nothing, another end does.
    rows[0]["input"] = "topic " + rows[0]["input"]
    expected = [part.loss for part in model.mix_report.models]
    assert losses_of(models, "decoder", rows, max_input_length=12) == pytest.approx(expected)
    rows[0]["input"] += "e"
    assert losses_of(models, "decoder", rows, max_input_length=12) != pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_an_error_and_nothing_is_saved():
    models = save_family(Path("family"), "decoder")
    change(models[1], model__norm__weight=torch.full((16,), torch.nan))
    with pytest.raises(NonFiniteError, match="2-expert2: the loss of row 1, 2 is not finite"):
        mix_models_with_data(models, "decoder", ANSWERS, output_path="mixed")
    assert not Path("mixed").exists()


# 3. Models without a pad token, such as Llama, are a TypeError.
def test_a_decoder_without_a_pad_token_is_scored():
    models = save_family(Path("family"), "decoder")
    assert AutoTokenizer.from_pretrained(models[0]).pad_token_id is None
    assert all(0 < loss < 20 for loss in losses_of(models, "decoder", ANSWERS))


# 4. Weights whose sum is too small are accepted: every tensor shrinks with it. Asserts vanish under `python -O`.
@pytest.mark.parametrize("weights", [[0.3, 0.2], [0.7, 0.7], [-1.0, 1.0]])
@pytest.mark.parametrize("mix", [mix_models, mix_models_by_layers])
def test_weights_that_do_not_sum_to_one_are_refused(mix, weights):
    with pytest.raises(ValueError, match=f"weights: expected a sum of 1, found {sum(weights):g}"):
        mix(["a", "b"], "decoder", weights)


def test_a_sum_that_misses_one_by_rounding_is_scaled_to_one():
    models = save_family(Path("family"), "decoder", 3)
    report = mix_models(models, "decoder", [0.333, 0.333, 0.333]).mix_report
    assert report.weights == pytest.approx([1 / 3] * 3, abs=1e-12)


# 5. Negatives are drawn without a seed, so two runs give two results.
# 20. (second half) Its in-batch negatives may be a query's own positives.
@pytest.mark.parametrize("model_type", ["encoder", "reranker"])
def test_chosen_negatives_depend_on_their_row_alone(model_type):
    models = save_family(Path("family"), model_type)
    words = ["a", "b", "c", "d", "e", "yes", "no", "topic"]
    rows = [{"query": f"question {word}", "pos": ["answer"], "neg": words} for word in ("a", "b", "c")]
    found = []
    for seed, order in enumerate([rows, rows, rows[::-1]]):
        random.seed(seed)
        found.append(losses_of(models, model_type, order, neg_number=3))
    assert found[0] == found[1]
    assert found[2] == pytest.approx(found[0], abs=1e-6)
    assert losses_of(models, model_type, rows, neg_number=4) != pytest.approx(found[0])


# 6. Rows with fewer negatives than `neg_number` are a ValueError; of several positives all but the first are ignored.
@pytest.mark.parametrize("model_type", ["encoder", "reranker"])
def test_few_negatives_are_enough_and_all_positives_count(model_type):
    models = save_family(Path("family"), model_type)
    plain = losses_of(models, model_type, PAIRS)
    more = [{**PAIRS[0], "pos": [*PAIRS[0]["pos"], "answer topic"]}, PAIRS[1]]
    assert losses_of(models, model_type, more) != pytest.approx(plain)


# 7. The default limit of 2048 tokens runs over the end of encoders that read fewer.
@pytest.mark.parametrize("model_type", ["encoder", "reranker"])
def test_texts_longer_than_the_model_reads_are_cut_to_its_limit(model_type):
    models = save_family(Path("family"), model_type)
    long = " ".join(["topic"] * 100)
    rows = [{"query": "question", "pos": [f"answer {long}"], "neg": [f"no {long}"]}]
    assert all(loss > 0 for loss in losses_of(models, model_type, rows))


# 8. Tensors of other shapes are broadcast, tensors that only other models have are dropped without a word.
def test_tensors_that_do_not_match_are_refused_and_all_of_them_named():
    models = save_family(Path("family"), "encoder")
    narrow = load_file(models[1] / "model.safetensors")["embeddings.token_type_embeddings.weight"][:1]
    change(
        models[1], embeddings__token_type_embeddings__weight=narrow, extra=torch.zeros(2, 2), pooler__dense__bias=None
    )
    for mix in (mix_models, mix_models_by_layers):
        with pytest.raises(PreflightError) as error:
            mix(models, "encoder", [0.5, 0.5], "mixed")
        for part in ("token_type_embeddings", "'extra'", "pooler.dense.bias"):
            assert part in str(error.value)
    assert not Path("mixed").exists()


def test_other_vocabularies_are_refused():
    models = save_family(Path("family"), "decoder")
    text = (models[1] / "tokenizer.json").read_text()
    (models[1] / "tokenizer.json").write_text(text.replace('"yes"', '"maybe"'))
    with pytest.raises(PreflightError, match="maybe"):
        mix_models(models, "decoder", [0.5, 0.5])


# 9. bfloat16 models are summed in bfloat16: a weight of 0.1 becomes 0.10009766, and every addition rounds.
def test_sums_are_taken_in_float32_and_rounded_once():
    base = save_decoder(Path("base"), 1, dtype=torch.bfloat16)
    models = [base, *(fine_tune(base, Path(f"expert{seed}"), seed) for seed in range(2, 11))]
    for folder in models:
        change(folder, model__norm__weight=torch.full((16,), 3.0, dtype=torch.bfloat16))
    model = mix_models(models, "decoder", [0.1] * 10)
    # Ten times 0.1 x 3 is 3; the package's own sum, in bfloat16, misses it.
    by_package = sum(0.1 * load_file(folder / "model.safetensors")["model.norm.weight"] for folder in models)
    assert model.model.norm.weight.tolist() == [3.0] * 16
    assert by_package.tolist() != [3.0] * 16
    assert_same(model.state_dict(), mix_by_hand(models, [0.1] * 10))
    assert model.dtype == torch.bfloat16


# 10. Every encoder is scored and saved with CLS pooling; prompts, Dense layers, similarity and limits are lost.
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_an_embedder_keeps_all_of_its_files(pooling):
    settings = {"pooling": pooling, "similarity": "dot", "prompts": {"query": "query: ", "document": "document: "}}
    base = save_encoder(Path("base"), 1, dense=True, **settings)
    expert = fine_tune(base, Path("expert"), 2)
    mix_models([base, expert], "encoder", [0.5, 0.5], "mixed")
    files = {path.relative_to(base).as_posix() for path in files_in(base)}
    assert {path.relative_to("mixed").as_posix() for path in files_in("mixed")} == files | {"mix.json"}
    for file in sorted(files):
        if file.endswith(".safetensors"):
            expected = mix_by_hand([(folder / file).parent for folder in (base, expert)], [0.5, 0.5])
            assert_same(load_file(Path("mixed") / file), expected)
        else:
            assert (Path("mixed") / file).read_bytes() == (base / file).read_bytes()


def test_an_embedder_is_scored_with_its_own_pooling():
    models = {pooling: save_encoder(Path(pooling), 1, pooling=pooling) for pooling in ("mean", "cls", "lasttoken")}
    losses = [losses_of([model], "encoder", PAIRS)[0] for model in models.values()]
    assert losses == pytest.approx([contrastive_loss(model, PAIRS) for model in models.values()], abs=1e-4)
    assert len({round(loss, 3) for loss in losses}) == 3


def contrastive_loss(folder, rows):
    """Mean of InfoNCE over cosines / 0.05 of every query against its positive and all other texts, written out."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    texts = [text for row in rows for text in row["pos"]]
    losses = []
    for row in rows:
        others = [text for text in dict.fromkeys([*texts, *row["neg"]]) if text not in row["pos"]]
        query = model.encode_query([row["query"]], convert_to_tensor=True)
        documents = model.encode_document([*row["pos"], *others], convert_to_tensor=True)
        logits = torch.nn.functional.cosine_similarity(query, documents) / 0.05
        losses.append(-logits.log_softmax(0)[0].item())
    return sum(losses) / len(losses)


# 11. Boolean and 8-bit tensors are multiplied by the weights; of integer ones the last model's are taken.
def test_tensors_that_are_no_floats_are_those_of_the_first_model():
    models = save_family(Path("family"), "decoder")
    kinds = {"flags": torch.bool, "bytes": torch.uint8, "positions": torch.int64, "counts": torch.int32}
    for number, model in enumerate(models):
        change(model, **{name: torch.full((3,), number, dtype=dtype) for name, dtype in kinds.items()})
    mix_models(models, "decoder", [0.5, 0.5], "mixed")
    mixed = load_file("mixed/model.safetensors")
    for name, dtype in kinds.items():
        assert torch.equal(mixed[name], torch.zeros(3, dtype=dtype))


# 12. All models are in memory at once. Here none is until the mixed one is loaded.
def test_memory_does_not_grow_with_the_models():
    base = Path("base")
    base.mkdir()
    n_bytes = 50_000_000
    header = json.dumps({"w": {"dtype": "BF16", "shape": [n_bytes // 2], "data_offsets": [0, n_bytes]}}).encode()
    (base / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(base / "model.safetensors", 8 + len(header) + n_bytes)
    change_config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (base / "config.json").write_text(json.dumps(change_config))
    script = """
import flows.mix
from pathlib import Path

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

flows.mix._load = lambda folder, report: None
before = peak()
flows.mix.mix_models(["base"] * 10, "decoder", [0.1] * 10, "mixed", cache="cache")
print(peak() - before)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (Path("mixed") / "model.safetensors").stat().st_size > n_bytes
    assert int(found.stdout) < 100  # MB; ten models and the result are 550


# 14. Every example is padded to `max_input_length`; models are scored one after the other.
def test_examples_are_padded_to_the_longest_of_their_batch():
    models = save_family(Path("family"), "decoder")
    lengths = []

    def note(module, inputs):
        if isinstance(module, torch.nn.Embedding):
            lengths.append(inputs[0].shape[-1])

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        losses_of(models, "decoder", ANSWERS, max_input_length=2048)
    finally:
        handle.remove()
    assert max(lengths) == 4  # <s> question a b; the last token of an answer is predicted, not read


def test_models_are_scored_at_the_same_time(monkeypatch):
    both_are_here = threading.Barrier(2, timeout=120)

    def call(_setting, function, *_arguments, **_options):
        both_are_here.wait()
        return {"losses": [1.0, 2.0], "n_tokens": 2, "warnings": [], "seconds": 0.1}

    monkeypatch.setattr("tasks.score.candidate.call_on_device", call)
    assert losses_of(save_family(Path("family"), "decoder"), "decoder", ANSWERS) == [1.5, 1.5]


# 15. The loss is a mean over batches, so batch size and order change it.
@pytest.mark.parametrize("model_type", TYPES)
def test_losses_depend_neither_on_batch_size_nor_on_order(model_type):
    models = save_family(Path("family"), model_type)
    rows = [
        *ROWS[model_type],
        {**ROWS[model_type][0], **({"output": "a b c"} if "output" in ROWS[model_type][0] else {"query": "e"})},
    ]
    expected = losses_of(models, model_type, rows, batch_size=1, max_input_length=16)
    assert losses_of(models, model_type, rows, batch_size=100, max_input_length=16) == pytest.approx(expected, abs=1e-5)
    assert losses_of(models, model_type, rows[::-1], max_input_length=16) == pytest.approx(expected, abs=1e-5)


# 16. Where the answer begins is counted in tokens of the prompt alone, and an end token is always appended.
@pytest.mark.parametrize("template", ["$A", "<s> $A", "<s> $A </s>"])
def test_the_answer_is_found_whatever_tokens_the_tokenizer_adds(template):
    model = save_decoder(Path("model"), 1, template=template)
    row = {"input": "question a", "output": "yes no"}
    ids = AutoTokenizer.from_pretrained(model)("question a yes no", return_tensors="pt")["input_ids"][0]
    ids = ids[:-1] if template.endswith("</s>") else ids
    logits = AutoModelForCausalLM.from_pretrained(model)(ids[None]).logits[0].log_softmax(-1)
    # The last two tokens are " yes" and " no"; each is predicted by the one before.
    expected = -(logits[-3, ids[-2]] + logits[-2, ids[-1]]).item() / 2
    assert losses_of([model], "decoder", [row]) == pytest.approx([expected], abs=1e-5)


# 17. Code that comes with any of the models is run.
def test_code_in_a_folder_is_never_run():
    models = save_family(Path("family"), "decoder")
    for folder in models:
        (folder / "trap.py").write_text("open('sprung', 'w')\nModel = Tokenizer = Config = None\n")
        for file, kinds in {
            "config.json": {"AutoModelForCausalLM": "trap.Model", "AutoConfig": "trap.Config"},
            "tokenizer_config.json": {"AutoTokenizer": ["trap.Tokenizer", "trap.Tokenizer"]},
        }.items():
            change_json(folder / file, auto_map=kinds)
    mix_models_with_data(models, "decoder", ANSWERS, output_path="mixed")
    assert Path("mixed/trap.py").exists()  # a file as any other
    assert not Path("sprung").exists()


# 18. Weights and losses are printed, and lost.
def test_weights_losses_and_origins_are_returned_and_saved():
    models = save_family(Path("family"), "decoder", 3)
    report = mix_models_with_data(models, "decoder", ANSWERS, 2.0, output_path="mixed").mix_report
    saved = json.loads(Path("mixed/mix.json").read_text())
    assert [part["weight"] for part in saved["models"]] == report.weights
    assert [part["loss"] for part in saved["models"]] == [part.loss for part in report.models]
    assert [Path(part["model"]).name for part in saved["models"]] == ["base", "expert2", "expert3"]
    assert all(part["revision"].startswith("sha256:") and part["loss_stderr"] > 0 for part in saved["models"])
    assert (saved["temperature"], saved["loss"], saved["n_examples"]) == (2.0, "default", 2)
    # softmax(-loss / T): the ratio of two weights is exp of the difference of their losses over T.
    for a, b in pairwise(report.models):
        assert torch.tensor(a.weight / b.weight).log().item() == pytest.approx((b.loss - a.loss) / 2.0, abs=1e-5)


# 19. encoder-decoder is known to one function of three, reranker to two.
@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_can_be_mixed_with_and_without_data(model_type):
    models = save_family(Path("family"), model_type)
    assert_same(mix_models(models, model_type, [0.7, 0.3]).state_dict(), mix_by_hand(models, [0.7, 0.3]))
    model = mix_models_with_data(models, model_type, ROWS[model_type], output_path="mixed")
    assert_same(model.state_dict(), mix_by_hand(models, model.mix_report.weights))
    assert AutoTokenizer.from_pretrained("mixed")("question a")["input_ids"]


# 20. Prompts ("query: ") are not known, and a positive of another row that is one's own is taken as a negative.
def test_an_embedder_is_scored_with_its_own_prompts():
    prompts = {"query": "query: ", "document": "document: "}
    models = [save_encoder(Path("plain"), 1), save_encoder(Path("prompted"), 1, prompts=prompts)]
    found = [losses_of([model], "encoder", PAIRS)[0] for model in models]
    assert found == pytest.approx([contrastive_loss(model, PAIRS) for model in models], abs=1e-4)
    assert abs(found[0] - found[1]) > 0.01


def test_a_positive_that_two_rows_share_is_no_negative():
    model = save_encoder(Path("model"), 1)
    rows = [{"query": "a", "pos": ["yes"], "neg": ["no"]}, {"query": "b", "pos": ["yes"], "neg": ["topic"]}]
    assert losses_of([model], "encoder", rows) == pytest.approx([contrastive_loss(model, rows)], abs=1e-4)
