"""Against plain transformers, one pair at a time, and the formula written out."""

import math

import pytest
import torch
from parity_models import PAIRS, save_reranker
from transformers import GPT2Config, GPT2ForSequenceClassification

import tasks.resident
from tasks.errors import CheckpointError, ExampleDataError, NonFiniteError
from tasks.losses.reranker import reranker_losses
from tasks.resident import ResidentModel, resident_model

LIMITS = {"batch_tokens": 64, "max_length": 32}


def load_reranker(folder, n_logits=1):
    """A module of its own, that no other test loads over."""
    save_reranker(folder, 1, n_logits)
    reranker = resident_model("reranker", folder, "float32", "cpu")
    tasks.resident._slots.clear()
    return reranker


@pytest.fixture(scope="module", params=[1, 2])
def reranker(tmp_path_factory, request):
    return load_reranker(tmp_path_factory.mktemp("reranker"), request.param)


def plain_score(reranker, query, document):
    with torch.no_grad():
        logits = reranker.model(**reranker.tokenizer(query, document, return_tensors="pt")).logits[0]
    return float(logits[0]) if len(logits) == 1 else math.log(float(logits.softmax(-1)[1] / logits.softmax(-1)[0]))


def plain_loss(reranker, row):
    """Mean over the positives of -log softmax of the positive among itself and the negatives."""
    scores = {text: plain_score(reranker, row["query"], text) for text in (*row["pos"], *row["neg"])}
    negatives = sum(math.exp(scores[text]) for text in row["neg"])
    shares = [math.exp(scores[text]) / (math.exp(scores[text]) + negatives) for text in row["pos"]]
    return -sum(map(math.log, shares)) / len(shares)


def test_a_loss_is_the_listwise_cross_entropy_of_a_rows_positives(reranker):
    rows = [*PAIRS, {"query": "berlin", "pos": ["germany", "a big city"], "neg": ["france"]}]
    losses, n_pairs = reranker_losses(reranker, rows, **LIMITS)
    assert losses == pytest.approx([plain_loss(reranker, row) for row in rows], abs=1e-5)
    assert n_pairs == 4 + 4 + 4 + 3


def test_batches_and_repeated_texts_change_nothing(reranker):
    alone, _ = reranker_losses(reranker, PAIRS, batch_tokens=1, max_length=32)
    doubled = [{**row, "pos": row["pos"] * 2, "neg": row["neg"] * 2} for row in PAIRS]
    together, n_pairs = reranker_losses(reranker, doubled, batch_tokens=10_000, max_length=32)
    assert alone == pytest.approx(together, abs=1e-5)
    assert n_pairs == 12


def test_without_a_pad_token_pairs_are_read_one_at_a_time(reranker):
    tokenizer = type(reranker.tokenizer).from_pretrained(reranker.folder)
    tokenizer.pad_token = None
    unpadded = ResidentModel(reranker.model, tokenizer, "cpu", reranker.folder)
    expected, _ = reranker_losses(reranker, PAIRS, **LIMITS)
    assert reranker_losses(unpadded, PAIRS, **LIMITS)[0] == pytest.approx(expected, abs=1e-5)


def decoder_with_a_head(pad_token_id):
    """Its score is that of the last token which is not the padding of its configuration; its positions are a table."""
    torch.manual_seed(1)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=32, **sizes, num_labels=1, pad_token_id=pad_token_id, bos_token_id=2, eos_token_id=3)
    return GPT2ForSequenceClassification(config).eval()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_token_id", [0, 30])
def test_batches_change_nothing_wherever_and_with_what_the_tokenizer_pads(reranker, side, pad_token_id):
    tokenizer = type(reranker.tokenizer).from_pretrained(reranker.folder, padding_side=side)
    model = decoder_with_a_head(pad_token_id)
    for each in (reranker.model, model):
        turned = ResidentModel(each, tokenizer, "cpu", reranker.folder)
        alone, _ = reranker_losses(turned, PAIRS, batch_tokens=1, max_length=32)
        together, _ = reranker_losses(turned, PAIRS, batch_tokens=10_000, max_length=32)
        assert together == pytest.approx(alone, abs=1e-5)


def test_documents_are_cut_and_queries_never(reranker, caplog):
    # [CLS], three words, [SEP], three words, [SEP].
    long = {"query": "capital of germany", "pos": ["berlin a big old city"], "neg": ["paris in europe no yes"]}
    cut = {"query": "capital of germany", "pos": ["berlin a big"], "neg": ["paris in europe"]}
    found, _ = reranker_losses(reranker, [long], batch_tokens=64, max_length=9)
    assert found == pytest.approx([plain_loss(reranker, cut)], abs=1e-5)
    assert "2 of 2 pairs fill the limit of 9 tokens" in caplog.text
    with pytest.raises(ExampleDataError, match=r"1 of 1 queries leave no room .* 6 tokens .*\n  'capital .* 3 tokens"):
        reranker_losses(reranker, [long], batch_tokens=64, max_length=6)


def test_the_models_own_limit_holds_below_max_length(reranker):
    row = {"query": "paris", "pos": ["berlin " * 80], "neg": ["no"]}
    cut = {"query": "paris", "pos": ["berlin " * 60], "neg": ["no"]}
    found, _ = reranker_losses(reranker, [row], batch_tokens=64, max_length=2048)
    assert found == pytest.approx([plain_loss(reranker, cut)], abs=1e-5)


def test_a_row_without_negatives_is_refused(reranker):
    with pytest.raises(ExampleDataError, match="row 2: there is no negative"):
        reranker_losses(reranker, [PAIRS[0], {"query": "paris", "pos": ["berlin"]}], **LIMITS)


def test_a_model_of_three_logits_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="a reranker has one logit or two, this model has 3"):
        reranker_losses(load_reranker(tmp_path, 3), PAIRS, **LIMITS)


def test_a_reranker_that_computes_nan_is_refused(tmp_path):
    broken = load_reranker(tmp_path)
    with torch.no_grad():
        broken.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss of row 1, 2, 3 is not finite"):
        reranker_losses(broken, PAIRS, **LIMITS)
