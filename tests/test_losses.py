"""Decoders against plain transformers: one text at a time, unpadded, all logits. Encoders against formulas by hand."""

import math
import random

import pytest
import torch
from tiny_models import VOCABULARY, WORDS, save_decoder, save_encoder

import tasks.losses
import tasks.resident
from tasks.errors import ExampleDataError, NonFiniteError
from tasks.losses import answer_likelihoods, check_finite, decoder_losses, encoder_losses
from tasks.resident import ResidentDecoder, resident_decoder, resident_encoder
from tasks.texts.batches import token_batches
from tasks.texts.embedding import embed

LIMITS = {"batch_tokens": 64, "max_length": 32}


def load_decoder(folder):
    """A module of its own, that no other test loads over."""
    decoder = resident_decoder(save_decoder(folder, 1), "float32", "cpu")
    tasks.resident._slots.clear()
    return decoder


def load_encoder(folder, **options):
    encoder = resident_encoder(save_encoder(folder, 1, **options), "float32", "cpu")
    tasks.resident._slots.clear()
    return encoder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return load_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    prompts = {"query": "query: ", "document": "document: "}
    return load_encoder(tmp_path_factory.mktemp("encoder"), prompts=prompts)


@pytest.fixture(scope="module")
def pairs():
    """40 prompts and answers of 1 to 12 and 1 to 4 words."""
    drawn = random.Random(7)
    return [
        (" ".join(drawn.choices(WORDS, k=drawn.randint(1, 12))), " ".join(drawn.choices(WORDS, k=drawn.randint(1, 4))))
        for _ in range(40)
    ]


def reference_log_likelihood(decoder, prompt, answer):
    """Sum over the answer's words of log p(word | all before), from the full logits of the one text."""
    words = f"{prompt} {answer}".split(" ")
    ids = [VOCABULARY["<s>"], VOCABULARY[words[0]], *(VOCABULARY[f" {word}"] for word in words[1:])]
    with torch.no_grad():
        log_probabilities = decoder.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    n_answer = len(answer.split(" "))
    return sum(float(log_probabilities[place - 1, ids[place]]) for place in range(len(ids) - n_answer, len(ids)))


# Decoders


def test_a_likelihood_is_that_of_plain_transformers(decoder, pairs):
    found = answer_likelihoods(decoder, *zip(*pairs, strict=True), **LIMITS)
    expected = [reference_log_likelihood(decoder, prompt, answer) for prompt, answer in pairs]
    assert [likelihood.log_likelihood for likelihood in found] == pytest.approx(expected, abs=1e-4)
    assert [likelihood.n_tokens for likelihood in found] == [len(answer.split(" ")) for _, answer in pairs]


def test_a_loss_is_the_mean_over_the_answers_tokens(decoder):
    rows = [{"input": "question a", "output": "yes no b"}, {"input": "topic", "output": "c"}]
    losses, n_tokens = decoder_losses(decoder, rows, **LIMITS)
    expected = [
        -reference_log_likelihood(decoder, "question a", "yes no b") / 3,
        -reference_log_likelihood(decoder, "topic", "c"),
    ]
    assert losses == pytest.approx(expected, abs=1e-5)
    assert n_tokens == 4


def test_batches_change_nothing(decoder, pairs):
    rows = [{"input": prompt, "output": answer} for prompt, answer in pairs]
    alone, together = (decoder_losses(decoder, rows, batch_tokens=n, max_length=32)[0] for n in (1, 10_000))
    assert alone == pytest.approx(together, abs=1e-5)


def test_labels_after_one_prompt_share_its_computation(decoder, monkeypatch):
    computed = []
    compute = tasks.losses._logits_at
    monkeypatch.setattr(
        tasks.losses, "_logits_at", lambda *arguments: computed.append(len(arguments[1])) or compute(*arguments)
    )
    prompts, answers = ["question a"] * 4 + ["topic b"], ["yes", "no", "b c", "yes", "no"]
    found = answer_likelihoods(decoder, prompts, answers, **LIMITS)
    # "question a", "question a b" and "topic b" are read once each.
    assert sum(computed) == 3
    expected = [reference_log_likelihood(decoder, *pair) for pair in zip(prompts, answers, strict=True)]
    assert [likelihood.log_likelihood for likelihood in found] == pytest.approx(expected, abs=1e-5)


def test_an_architecture_that_always_gives_all_logits_gives_the_same(decoder, pairs):
    class AllLogits:
        """As Whisper's decoder: no `logits_to_keep`."""

        config = decoder.model.config

        def forward(self, input_ids, attention_mask, use_cache):
            return decoder.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

        __call__ = forward

    other = ResidentDecoder(AllLogits(), decoder.tokenizer, "cpu", decoder.folder)
    pairs = list(zip(*pairs, strict=True))
    assert answer_likelihoods(other, *pairs, **LIMITS) == answer_likelihoods(decoder, *pairs, **LIMITS)


def test_logits_are_made_at_the_labels_only(decoder, monkeypatch):
    shapes = []
    make = decoder.model.lm_head.forward
    monkeypatch.setattr(decoder.model.lm_head, "forward", lambda x: shapes.append(tuple(x.shape)) or make(x))
    answer_likelihoods(decoder, ["a b c d e a b c d e"], ["yes no"], **LIMITS)
    assert shapes == [(1, 2, 16)]


def test_the_models_own_limit_holds_below_max_length(decoder):
    # It reads 32 tokens: <s>, 29 of the prompt and 2 of the answer; the first three words are cut.
    prompt = " ".join(["yes no a", *["b"] * 29])
    (found,) = answer_likelihoods(decoder, [prompt], ["c d"], batch_tokens=64, max_length=2048)
    ids = [VOCABULARY["<s>"], *[VOCABULARY[" b"]] * 29, VOCABULARY[" c"], VOCABULARY[" d"]]
    with torch.no_grad():
        log_probabilities = decoder.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = log_probabilities[29, ids[30]] + log_probabilities[30, ids[31]]
    assert found.log_likelihood == pytest.approx(float(expected), abs=1e-5)
    with pytest.raises(ExampleDataError, match="the limit is 32"):
        answer_likelihoods(decoder, ["a"], [" ".join(["b"] * 32)], batch_tokens=64, max_length=2048)


def test_a_model_that_computes_nan_is_refused(tmp_path):
    broken = load_decoder(tmp_path / "broken")
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"the loss of row 1, 2 is not finite: .*score\.dtype: float32"):
        answer_likelihoods(broken, ["a", "b"], ["yes", "no"], **LIMITS)


def test_the_rows_that_are_not_finite_are_listed_up_to_ten():
    check_finite([0.0, -1.0])
    with pytest.raises(NonFiniteError, match="row 2, 3 is"):
        check_finite([0.0, math.nan, math.inf])
    with pytest.raises(NonFiniteError, match="9, 10 and 2 more is"):
        check_finite([math.nan] * 12)


# Batches


def test_batches_hold_a_budget_of_padded_tokens_longest_first():
    # 4 + 4 tokens when the three is padded, then 2 + 2 + 2 in 8.
    assert list(token_batches([2, 3, 4, 1, 2], 8)) == [[2, 1], [0, 4, 3]]


def test_a_text_over_the_budget_is_a_batch_by_itself():
    assert list(token_batches([1, 9, 0], 4)) == [[1], [0, 2]]
    assert list(token_batches([], 4)) == []


# Encoders


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
    monkeypatch.setattr(tasks.losses, "_QUERIES_AT_ONCE", 5)
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
