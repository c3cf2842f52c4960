"""Scores of tiny models: once through a real worker process, else computed in this process."""

import json
import math
import tempfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_adapters import save_merged, write_adapter
from tiny_models import save_decoder, save_encoder, word_tokenizer

import tasks.resident
import tasks.score.candidate
from tasks.cache import ResultCache, open_cache
from tasks.checkpoint import describe_folder, list_model_files
from tasks.data.examples import describe_examples
from tasks.devices import open_devices
from tasks.digests import hash_file
from tasks.errors import ExampleDataError, InputError, NonFiniteError, RecipeError
from tasks.losses.decoder import decoder_losses
from tasks.losses.encoder import encoder_losses
from tasks.records import Score, from_json, to_json
from tasks.resident import resident_decoder, resident_encoder
from tasks.score.candidate import is_scored, score_candidate
from tasks.settings import CacheSettings, ScoreSettings

ANSWERS = [{"input": "question a", "output": "yes no"}, {"input": "topic b", "output": "no"}]
PAIRS = [{"query": "a", "pos": ["yes"], "neg": ["no"]}, {"query": "b", "pos": ["topic"]}]
MODULES = {"model.layers.0.self_attn.q_proj": (16, 16), "model.layers.1.mlp.down_proj": (16, 24)}
SETTINGS = ScoreSettings(devices=["cpu:0"], batch_tokens=64, max_length=32)


@pytest.fixture(autouse=True)
def no_resident():
    yield
    tasks.resident._slots.clear()


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def in_process(monkeypatch):
    """Computes in this process; the list says how often."""
    calls = []

    def call(setting, function, *arguments, timeout_seconds, report_progress):
        calls.append((setting, timeout_seconds))
        return function("cpu", *arguments)

    monkeypatch.setattr(tasks.score.candidate, "call_on_device", call)
    return calls


def describe(folder, name="law"):
    return describe_folder(
        name, str(folder), folder, {path: hash_file(folder / path) for path in list_model_files(folder)}
    )


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def law(tmp_path):
    return describe(save_decoder(tmp_path / "law", 1))


@pytest.fixture
def examples(tmp_path):
    return describe_examples(write_rows(tmp_path / "examples.jsonl", ANSWERS), ANSWERS)


def test_a_worker_process_scores_candidates_as_this_process_does(tmp_path, cache, law, examples, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # device locks that no other run shares
    news = describe(save_decoder(tmp_path / "news", 2), "news")
    support = describe(save_encoder(tmp_path / "support", 3), "support")
    pairs = describe_examples(write_rows(tmp_path / "pairs.jsonl", PAIRS), PAIRS)
    reports = []
    with open_devices(SETTINGS.devices):
        found = [
            score_candidate(law, examples, "decoder", SETTINGS, cache, lambda *report: reports.append(report)),
            score_candidate(news, examples, "decoder", SETTINGS, cache),
            score_candidate(support, pairs, "encoder", SETTINGS, cache),
        ]
    limits = {"batch_tokens": 64, "max_length": 32}
    expected = [
        decoder_losses(resident_decoder(tmp_path / "law", "float32", "cpu"), ANSWERS, **limits),
        decoder_losses(resident_decoder(tmp_path / "news", "float32", "cpu"), ANSWERS, **limits),
        encoder_losses(resident_encoder(tmp_path / "support", "float32", "cpu"), PAIRS, **limits),
    ]
    assert [score.candidate for score in found] == ["law", "news", "support"]
    for score, (losses, n_tokens) in zip(found, expected, strict=True):
        assert score.losses == pytest.approx(losses, abs=1e-6)
        assert score.n_tokens == n_tokens
        assert score.seconds > 0 and not score.cached
    assert reports[-1] == (2, 2)


def test_what_was_scored_before_is_not_computed_again(tmp_path, cache, law, examples, in_process):
    assert not is_scored(law, examples, "decoder", SETTINGS, cache)
    first = score_candidate(law, examples, "decoder", SETTINGS, cache)
    # The same content under another name and path, in other batches, on other devices.
    moved = describe((tmp_path / "law").rename(tmp_path / "moved"), "other")
    settings = SETTINGS.model_copy(update={"batch_tokens": 9, "devices": ["cpu:1"], "timeout_seconds": 5.0})
    assert is_scored(moved, examples, "decoder", settings, cache)
    second = score_candidate(moved, examples, "decoder", settings, cache)
    assert len(in_process) == 1
    assert (second.candidate, second.losses, second.seconds) == ("other", first.losses, first.seconds)
    assert (first.cached, second.cached) == (False, True)


def test_a_second_machine_has_the_score_of_the_first_without_computing_it(tmp_path, s3, law, examples, in_process):
    s3.create_bucket("team")
    here, there = (
        open_cache(CacheSettings(folder=str(tmp_path / name), shared="s3://team/cache")) for name in ("a", "b")
    )
    first = score_candidate(law, examples, "decoder", SETTINGS, here)
    second = score_candidate(law, examples, "decoder", SETTINGS, there)
    assert len(in_process) == 1
    assert second == replace(first, cached=True)


def test_what_was_said_of_a_score_is_said_again_when_the_cache_answers(tmp_path, cache, law, in_process, caplog):
    rows = [{"input": " ".join(["a"] * 40), "output": "yes"}, *ANSWERS]
    examples = describe_examples(write_rows(tmp_path / "long.jsonl", rows), rows)
    said = "1 of 3 texts have more than 32 tokens and lose the beginning of their prompt"
    first = score_candidate(law, examples, "decoder", SETTINGS, cache)
    assert first.warnings == (said,)
    assert said in caplog.text
    caplog.clear()
    second = score_candidate(replace(law, name="other"), examples, "decoder", SETTINGS, cache)
    assert second.cached and second.warnings == first.warnings
    assert f"other, as was found when it was scored: {said}" in caplog.text
    assert from_json(Score, to_json(second)) == second


def test_what_is_kept_of_a_warning_names_no_folder(tmp_path, cache, in_process):
    folder = save_encoder(tmp_path / "bare", 3)
    (folder / "modules.json").unlink()
    pairs = describe_examples(write_rows(tmp_path / "pairs.jsonl", PAIRS), PAIRS)
    score = score_candidate(describe(folder), pairs, "encoder", SETTINGS, cache)
    assert score.warnings == ("there is no modules.json, so mean pooling of the token vectors is assumed",)


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"max_length": 16}])
def test_what_changes_losses_is_computed_again(cache, law, examples, in_process, change):
    score_candidate(law, examples, "decoder", SETTINGS, cache)
    score_candidate(law, examples, "decoder", SETTINGS.model_copy(update=change), cache)
    assert len(in_process) == 2


def test_a_batch_size_matters_to_lm_cocktail_alone(cache, law, examples, in_process):
    tokenizer = word_tokenizer("<s> $A")
    tokenizer.eos_token = "</s>"
    tokenizer.save_pretrained(law.folder)
    law = describe(law.folder)
    for batch_size in (1, 2):
        settings = SETTINGS.model_copy(update={"batch_size": batch_size})
        score_candidate(law, examples, "decoder", settings, cache)
        found = score_candidate(law, examples, "decoder", settings.model_copy(update={"loss": "lm_cocktail"}), cache)
        assert len(found.losses) == 2 // batch_size
        assert found.unit == "batch"
    assert len(in_process) == 3


def test_a_loss_that_a_model_type_has_not_is_refused_before_any_work(cache, law, examples, in_process):
    settings = SETTINGS.model_copy(update={"loss": "lm_cocktail"})
    with pytest.raises(RecipeError, match=r"score\.loss lm_cocktail: LM_Cocktail measures no rerankers"):
        score_candidate(law, examples, "reranker", settings, cache)
    assert not in_process


def test_other_examples_are_scored_again(tmp_path, cache, law, examples, in_process):
    score_candidate(law, examples, "decoder", SETTINGS, cache)
    other = describe_examples(write_rows(tmp_path / "other.jsonl", ANSWERS[:1]), ANSWERS[:1])
    assert len(score_candidate(law, other, "decoder", SETTINGS, cache).losses) == 1
    assert len(in_process) == 2


def test_devices_and_time_limit_are_those_of_the_settings(cache, law, examples, in_process):
    settings = SETTINGS.model_copy(update={"devices": ["cpu:3"], "timeout_seconds": 7.0})
    score_candidate(law, examples, "decoder", settings, cache)
    assert in_process == [(["cpu:3"], 7.0)]


def test_a_loss_that_is_not_finite_names_the_candidate_and_is_not_kept(tmp_path, cache, examples, in_process):
    folder = save_decoder(tmp_path / "broken", 1)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], math.nan)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="candidate law: the loss of row 1, 2 is not finite"):
            score_candidate(describe(folder), examples, "decoder", SETTINGS, cache)
    assert len(in_process) == 2


def test_an_example_that_cannot_be_scored_names_its_file(tmp_path, cache, law, in_process):
    rows = [*ANSWERS, {"input": "a", "output": " ".join(["yes"] * 40)}]
    examples = describe_examples(write_rows(tmp_path / "long.jsonl", rows), rows)
    with pytest.raises(ExampleDataError, match=r"long\.jsonl: 1 of 3 answers .*\n.*row 3 .* the limit is 32"):
        score_candidate(law, examples, "decoder", SETTINGS, cache)


def test_examples_that_changed_since_the_plan_are_refused(tmp_path, cache, law, examples, in_process):
    write_rows(tmp_path / "examples.jsonl", ANSWERS[:1])
    with pytest.raises(ExampleDataError, match="the examples have changed since the run was planned"):
        score_candidate(law, examples, "decoder", SETTINGS, cache)


@pytest.fixture
def chat(tmp_path, law):
    """A LoRA adapter on `law`."""
    folder = write_adapter(tmp_path / "lora", MODULES, size=0.5)
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    return replace(law, name="chat", adapter=describe_folder("chat adapter", str(folder), folder, files))


def test_a_model_that_is_written_over_while_it_is_scored_is_refused_and_not_kept(tmp_path, cache, law, examples,
                                                                                 monkeypatch):  # fmt: skip
    def call(setting, function, *arguments, timeout_seconds, report_progress):
        save_decoder(tmp_path / "law", 2)
        return function("cpu", *arguments)

    monkeypatch.setattr(tasks.score.candidate, "call_on_device", call)
    with pytest.raises(InputError, match=r"law: .* changed since it was planned:\n  - model.safetensors: planned"):
        score_candidate(law, examples, "decoder", SETTINGS, cache)
    assert not is_scored(law, examples, "decoder", SETTINGS, cache)


def test_a_model_with_an_adapter_scores_as_the_model_that_both_make(tmp_path, cache, law, chat, examples, in_process):
    merged = save_merged(law.folder, chat.adapter.folder, tmp_path / "merged")
    expected = score_candidate(describe(merged, "merged"), examples, "decoder", SETTINGS, cache)
    found = score_candidate(chat, examples, "decoder", SETTINGS, cache)
    assert found.losses == expected.losses
    assert found.losses != pytest.approx(score_candidate(law, examples, "decoder", SETTINGS, cache).losses, abs=1e-3)


def test_scores_of_a_model_and_of_its_adapters_are_kept_apart(tmp_path, cache, law, chat, examples, in_process):
    other = write_adapter(tmp_path / "other", MODULES, lora_alpha=8)
    files = {path.name: hash_file(path) for path in other.iterdir()}
    louder = replace(law, adapter=describe_folder("louder", str(other), other, files))
    score_candidate(law, examples, "decoder", SETTINGS, cache)
    assert not is_scored(chat, examples, "decoder", SETTINGS, cache)
    score_candidate(chat, examples, "decoder", SETTINGS, cache)
    assert is_scored(chat, examples, "decoder", SETTINGS, cache)
    assert not is_scored(louder, examples, "decoder", SETTINGS, cache)


def test_a_model_with_an_adapter_is_known_wherever_both_lie(tmp_path, cache, law, chat, examples, in_process):
    first = score_candidate(chat, examples, "decoder", SETTINGS, cache)
    moved = describe((tmp_path / "law").rename(tmp_path / "elsewhere"))
    folder = (tmp_path / "lora").rename(tmp_path / "renamed")
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    again = replace(moved, name="again", adapter=describe_folder("x", str(folder), folder, files))
    rows = (tmp_path / "examples.jsonl").rename(tmp_path / "same-rows.jsonl")
    second = score_candidate(again, describe_examples(rows, ANSWERS), "decoder", SETTINGS, cache)
    assert (second.losses, second.cached, len(in_process)) == (first.losses, True, 1)
