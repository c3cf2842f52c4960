"""Against plain transformers: one row at a time, unpadded, the decoder's inputs written out."""

import pytest
import torch
from parity_models import ANSWERS, VOCABULARY, save_t5

import tasks.resident
from tasks.errors import ExampleDataError, NonFiniteError
from tasks.losses.encoder_decoder import encoder_decoder_losses
from tasks.resident import resident_model

LIMITS = {"batch_tokens": 64, "max_length": 16}


@pytest.fixture
def t5(tmp_path):
    save_t5(tmp_path, 1)
    model = resident_model("encoder-decoder", tmp_path, "float32", "cpu")
    tasks.resident._slots.clear()
    return model


def ids(text):
    return [VOCABULARY[word] for word in (*text.split(), "</s>")]


def plain_loss(t5, row):
    """Mean over the output's tokens, </s> included; T5 begins with the pad token, 0."""
    labels = ids(row["output"])
    with torch.no_grad():
        logits = t5.model(
            input_ids=torch.tensor([ids(row["input"])]), decoder_input_ids=torch.tensor([[0, *labels[:-1]]])
        ).logits[0]
    log_probabilities = logits.double().log_softmax(-1)
    return -sum(float(log_probabilities[place, label]) for place, label in enumerate(labels)) / len(labels)


def test_a_loss_is_the_mean_over_the_outputs_tokens(t5):
    losses, n_tokens = encoder_decoder_losses(t5, ANSWERS, **LIMITS)
    assert losses == pytest.approx([plain_loss(t5, row) for row in ANSWERS], abs=1e-5)
    assert n_tokens == 2 + 4 + 2


def test_batches_change_nothing(t5):
    alone, together = (encoder_decoder_losses(t5, ANSWERS, batch_tokens=n, max_length=16)[0] for n in (1, 10_000))
    assert alone == pytest.approx(together, abs=1e-5)


def test_a_long_input_loses_its_beginning_and_keeps_its_end_token(t5, caplog):
    row = {"input": "what is the capital of france", "output": "paris"}
    found, _ = encoder_decoder_losses(t5, [row], batch_tokens=64, max_length=4)
    assert found == pytest.approx([plain_loss(t5, {"input": "capital of france", "output": "paris"})], abs=1e-5)
    assert "1 of 1 inputs have more than 4 tokens and lose their beginning" in caplog.text


def test_outputs_that_cannot_be_predicted_whole_are_refused(t5):
    rows = [ANSWERS[0], {"input": "paris", "output": "yes it is"}, {"input": "paris", "output": " "}]
    with pytest.raises(ExampleDataError) as caught:
        encoder_decoder_losses(t5, rows, batch_tokens=64, max_length=3)
    assert str(caught.value) == (
        "2 of 3 outputs cannot be predicted:\n"
        "  row 2: the output has 4 tokens, but the limit is 3 (the smaller of score.max_length and what the model can "
        "read)\n"
        "  row 3: the output is empty, so there is nothing to predict"
    )


def test_a_model_that_computes_nan_is_refused(t5):
    with torch.no_grad():
        t5.model.decoder.final_layer_norm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss of row 1, 2, 3 is not finite"):
        encoder_decoder_losses(t5, ANSWERS, **LIMITS)
