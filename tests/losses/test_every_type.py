"""What holds for all model types: batches change nothing, memory that runs out costs time alone, nothing is silent."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_models import save_bert, save_reranker, save_t5
from tiny_models import WORDS, save_decoder

import tasks.losses.decoder
import tasks.losses.encoder_decoder
import tasks.losses.reranker
import tasks.resident
from tasks.errors import CheckpointError
from tasks.losses.decoder import decoder_losses
from tasks.losses.encoder import encoder_losses
from tasks.losses.encoder_decoder import encoder_decoder_losses
from tasks.losses.reranker import reranker_losses
from tasks.resident import ResidentModel, resident_encoder, resident_model
from tasks.texts.embedding import embed

_drawn = random.Random(3)


def words(most, least=1):
    return " ".join(_drawn.choices(WORDS, k=_drawn.randint(least, most)))


ANSWERS = [{"input": words(9), "output": words(4)} for _ in range(12)]
PAIRS = [{"query": words(3), "pos": [words(6)], "neg": [words(6), f"{words(6)} {n}"]} for n in range(8)]
TYPES = {
    "decoder": (save_decoder, ANSWERS, decoder_losses),
    "encoder": (save_bert, PAIRS, encoder_losses),
    "reranker": (save_reranker, PAIRS, reranker_losses),
    "encoder-decoder": (save_t5, ANSWERS, encoder_decoder_losses),
}


@pytest.fixture(scope="module", params=TYPES)
def measured(request, tmp_path_factory):
    """A model type with its model, rows and loss, and the losses of one row at a time."""
    save, rows, losses_of = TYPES[request.param]
    folder = tmp_path_factory.mktemp("model")
    save(folder, 1)
    if request.param == "encoder":
        model = resident_encoder(folder, "float32", "cpu")
    else:
        model = resident_model(request.param, folder, "float32", "cpu")
    tasks.resident._slots.clear()
    return request.param, model, rows, losses_of, losses_of(model, rows, batch_tokens=1, max_length=32)[0]


@settings(max_examples=12)
@given(batch_tokens=st.integers(1, 400), order=st.permutations(range(8)))
def test_neither_batch_size_nor_order_changes_a_loss(measured, batch_tokens, order):
    _, model, rows, losses_of, alone = measured
    turned = [rows[index] for index in order] + rows[8:]
    found, _ = losses_of(model, turned, batch_tokens=batch_tokens, max_length=32)
    assert found == pytest.approx([alone[index] for index in order] + alone[8:], abs=1e-4)


@pytest.mark.parametrize("most", [1, 3])
def test_out_of_memory_halves_the_batch_and_goes_on(measured, most, monkeypatch, caplog):
    model_type, model, rows, losses_of, alone = measured
    module = model if model_type == "encoder" else model.model
    compute, sizes = module.forward, []

    def forward(*arguments, **inputs):
        ids = inputs["input_ids"] if "input_ids" in inputs else arguments[0]["input_ids"]
        sizes.append(len(ids))
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(*arguments, **inputs)

    monkeypatch.setattr(module, "forward", forward)
    caplog.set_level("INFO")
    found, _ = losses_of(model, rows, batch_tokens=10_000, max_length=32)
    assert found == pytest.approx(alone, abs=1e-4)
    assert max(sizes) > most and "out of memory with" in caplog.text


def test_a_single_text_too_large_for_memory_is_an_error(measured, monkeypatch):
    model_type, model, rows, losses_of, _ = measured

    def forward(*arguments, **inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(model if model_type == "encoder" else model.model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        losses_of(model, rows, batch_tokens=64, max_length=32)


def without_pad_token(folder, kind):
    save_t5(folder, 1) if kind == "encoder-decoder" else save_reranker(folder, 1)
    model = resident_model(kind, folder, "float32", "cpu")
    tasks.resident._slots.clear()
    tokenizer = type(model.tokenizer).from_pretrained(folder)
    tokenizer.pad_token = None
    return model, ResidentModel(model.model, tokenizer, "cpu", folder)


def test_an_encoder_decoder_needs_no_pad_token_of_the_tokenizer(tmp_path):
    model, unpadded = without_pad_token(tmp_path, "encoder-decoder")
    limits = {"batch_tokens": 500, "max_length": 32}
    assert encoder_decoder_losses(unpadded, ANSWERS, **limits) == encoder_decoder_losses(model, ANSWERS, **limits)


def test_an_encoder_decoder_whose_configuration_names_no_start_is_refused(tmp_path):
    model, _ = without_pad_token(tmp_path, "encoder-decoder")
    model.model.config.decoder_start_token_id = None
    with pytest.raises(CheckpointError, match=r"how its decoder's inputs begin is not known: .*decoder_start_token_id"):
        encoder_decoder_losses(model, ANSWERS, batch_tokens=500, max_length=32)


def test_a_reranker_without_a_pad_token_says_that_it_reads_one_pair_at_a_time(tmp_path, caplog):
    _, unpadded = without_pad_token(tmp_path, "reranker")
    reranker_losses(unpadded, PAIRS, batch_tokens=500, max_length=32)
    assert "no pad token, so pairs are read one by one" in caplog.text


def test_an_encoder_without_a_pad_token_is_refused(tmp_path):
    save_bert(tmp_path, 1)
    encoder = resident_encoder(tmp_path, "float32", "cpu")
    tasks.resident._slots.clear()
    encoder.tokenizer.pad_token = None
    with pytest.raises(CheckpointError, match="the embedder's tokenizer has no pad token"):
        embed(encoder, ["a", "b c"], "query", batch_tokens=64)


def test_an_encoder_whose_tokenizer_pads_on_the_left_embeds_each_text_as_it_does_alone(tmp_path):
    save_bert(tmp_path, 1)
    encoder = resident_encoder(tmp_path, "float32", "cpu")
    tasks.resident._slots.clear()
    encoder.tokenizer.padding_side = "left"
    texts = ["paris", "what is the capital of france"]
    together, alone = (embed(encoder, texts, "document", batch_tokens=most) for most in (100, 1))
    torch.testing.assert_close(together, alone)
    assert encoder.tokenizer.padding_side == "left"


def test_an_encoder_that_promises_more_tokens_than_it_has_positions_reads_what_it_can(tmp_path, caplog):
    save_bert(tmp_path, 1)
    encoder = resident_encoder(tmp_path, "float32", "cpu")
    tasks.resident._slots.clear()
    encoder.max_seq_length = 512
    found = embed(encoder, ["paris " * 100], "document", batch_tokens=64)
    assert "1 of 1 texts have more than 64 tokens and lose their end" in caplog.text
    assert encoder.max_seq_length == 512
    cut = embed(encoder, ["paris " * 62], "document", batch_tokens=64)
    torch.testing.assert_close(found, cut)
