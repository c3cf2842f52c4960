"""Against formulas written out by hand, on vectors of plain `encode`."""

import math

import pytest
import torch
from tiny_models import WORDS, save_encoder

import tasks.losses.encoder
import tasks.resident
from tasks.errors import ExampleDataError, NonFiniteError
from tasks.losses.encoder import encoder_losses
from tasks.resident import resident_encoder
from tasks.texts.embedding import embed


def load_encoder(folder, **options):
    """A module of its own, that no other test loads over."""
    encoder = resident_encoder(save_encoder(folder, 1, **options), "float32", "cpu")
    tasks.resident._slots.clear()
    return encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    prompts = {"query": "query: ", "document": "document: "}
    return load_encoder(tmp_path_factory.mktemp("encoder"), prompts=prompts)


def similarities(encoder, query, documents):
    """The model's own, from plain encode with the prompt written out."""
    vectors = encoder.encode([f"document: {text}" for text in documents], convert_to_tensor=True)
    return encoder.similarity(encoder.encode(f"query: {query}", convert_to_tensor=True), vectors)[0].tolist()


def cross_entropy(positive, negatives, temperature):
    """-log softmax of the positive among itself and the negatives."""
    return -math.log(
        math.exp(positive / temperature)
        / (math.exp(positive / temperature) + sum(math.exp(negative / temperature) for negative in negatives))
    )


def test_texts_are_embedded_in_their_order_with_the_prompt_of_their_kind(encoder):
    texts = ["a", "b c d e yes no", "c", "d a b"]
    for kind in ("query", "document"):
        expected = encoder.encode([f"{kind}: {text}" for text in texts], convert_to_tensor=True)
        for batch_tokens in (1, 10_000):
            found = embed(encoder, texts, kind, batch_tokens=batch_tokens)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_long_text_loses_its_end_and_that_is_said(encoder, caplog):
    # With <s>, "query:" and </s>, 6 tokens leave room for three words.
    found = embed(encoder, ["a b c d e", "a b"], "query", batch_tokens=64, max_length=6)
    assert "1 of 2 texts have more than 6 tokens and lose their end" in caplog.text
    torch.testing.assert_close(found, embed(encoder, ["a b c", "a b"], "query", batch_tokens=64), atol=1e-5, rtol=0)
    assert encoder.max_seq_length == 16, "the model itself must stay as it was"


def test_a_query_is_compared_with_its_negatives_and_with_the_positives_of_others(encoder):
    rows = [
        {"query": "a", "pos": ["yes", "yes b"], "neg": ["no"]},
        # "yes" is a positive of the first row, so not a negative of it; "no" counts once; neg may be missing.
        {"query": "b", "pos": ["yes", "topic"]},
        {"query": "c", "pos": ["topic c"], "neg": ["no", "no d"]},
    ]
    losses, n_texts = encoder_losses(encoder, rows, batch_tokens=64)
    yes, yes_b, *others = similarities(encoder, "a", ["yes", "yes b", "no", "topic", "topic c"])
    first = (cross_entropy(yes, others, 0.05) + cross_entropy(yes_b, others, 0.05)) / 2
    yes, topic, *others = similarities(encoder, "b", ["yes", "topic", "yes b", "topic c"])
    second = (cross_entropy(yes, others, 0.05) + cross_entropy(topic, others, 0.05)) / 2
    topic_c, *others = similarities(encoder, "c", ["topic c", "no", "no d", "yes", "yes b", "topic"])
    assert losses == pytest.approx([first, second, cross_entropy(topic_c, others, 0.05)], abs=1e-4)
    assert n_texts == 3 + 6


def test_batches_and_blocks_of_queries_change_nothing_for_encoders(encoder, monkeypatch):
    rows = [{"query": word, "pos": [f"{word} yes"], "neg": ["no", "no b c d"]} for word in WORDS]
    together, _ = encoder_losses(encoder, rows, batch_tokens=10_000)
    monkeypatch.setattr(tasks.losses.encoder, "_QUERIES_AT_ONCE", 5)
    alone, _ = encoder_losses(encoder, rows, batch_tokens=1)
    assert alone == pytest.approx(together, abs=1e-4)


def test_dot_products_are_taken_as_they_are(tmp_path):
    encoder = load_encoder(tmp_path, similarity="dot")
    losses, _ = encoder_losses(encoder, [{"query": "a", "pos": ["yes"], "neg": ["no"]}], batch_tokens=64)
    query, yes, no = encoder.encode(["a", "yes", "no"], convert_to_tensor=True)
    assert losses == pytest.approx([cross_entropy(float(query @ yes), [float(query @ no)], 1.0)], abs=1e-4)


def test_rows_with_nothing_to_tell_the_positives_from_are_refused(encoder):
    rows = [{"query": "a", "pos": ["yes"], "neg": ["yes"]}, {"query": "b", "pos": ["yes"]}]
    with pytest.raises(ExampleDataError, match="row 1, 2: there is no text that the positives could be told from"):
        encoder_losses(encoder, rows, batch_tokens=64)


def test_an_encoder_that_computes_nan_is_refused(tmp_path):
    encoder = load_encoder(tmp_path)
    with torch.no_grad():
        encoder[0].auto_model.embeddings.LayerNorm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss of row 1 is not finite"):
        encoder_losses(encoder, [{"query": "a", "pos": ["yes"], "neg": ["no"]}], batch_tokens=64)
