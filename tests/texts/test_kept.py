import pytest
from tiny_models import word_tokenizer

import tasks.texts.kept
from tasks.errors import ExampleDataError
from tasks.texts.answers import tokenise_answers
from tasks.texts.kept import MAX_RESULTS, tokenise_once


@pytest.fixture(autouse=True)
def nothing_kept():
    tasks.texts.kept._results.clear()


def ask(tokenizer, *texts, what=("limit", 8)):
    """Whether it had to be made: True or False."""
    made = []
    found = tokenise_once(tokenizer, what, texts, lambda: made.append(1) or [list(part) for part in texts])
    assert found == [list(part) for part in texts]
    return bool(made)


def test_texts_are_tokenised_once_for_tokenizers_of_the_same_content():
    assert ask(word_tokenizer(), ["a", "b"], ["yes"])
    assert not ask(word_tokenizer(), ["a", "b"], ["yes"])


def test_other_tokenizers_texts_borders_and_limits_are_tokenised_anew():
    tokenizer = word_tokenizer()
    ending, padded = word_tokenizer("$A </s>"), word_tokenizer()
    padded.pad_token = "<unk>"
    assert ask(tokenizer, ["a", "b"])
    assert ask(ending, ["a", "b"])
    assert ask(padded, ["a", "b"])
    assert ask(tokenizer, ["ab"])
    assert ask(tokenizer, ["a"], ["b"])
    assert ask(tokenizer, ["a", "b"], what=("limit", 9))
    assert not ask(padded, ["a", "b"])
    french = word_tokenizer()
    # As NllbTokenizer and its kin have it.
    french.tgt_lang = "fra_Latn"
    assert ask(french, ["a", "b"])
    assert ask(word_tokenizer(), ["a", "b"])
    literal = word_tokenizer()
    literal.split_special_tokens = True
    assert ask(literal, ["a", "b"])


def test_a_few_results_are_kept_those_used_last():
    tokenizer = word_tokenizer()
    for number in range(MAX_RESULTS):
        assert ask(tokenizer, [str(number)])
    assert not ask(tokenizer, ["0"])
    assert ask(tokenizer, ["one more"])
    assert not ask(tokenizer, ["0"])
    assert ask(tokenizer, ["1"])


def test_very_many_texts_are_not_kept(monkeypatch):
    monkeypatch.setattr(tasks.texts.kept, "MAX_CHARACTERS", 3)
    assert ask(word_tokenizer(), ["abcd"]) and ask(word_tokenizer(), ["abcd"])


def test_what_is_cut_is_said_each_time_and_an_error_is_no_result(caplog):
    tokenizer = word_tokenizer()
    for _ in range(2):
        caplog.clear()
        tokenise_answers(tokenizer, ["a b c d"], ["yes"], 3)
        assert "1 of 1 texts have more than 3 tokens" in caplog.text
        with pytest.raises(ExampleDataError, match="the answer is empty"):
            tokenise_answers(tokenizer, ["a"], [""], 3)


def test_a_tokenizer_of_another_kind_is_asked_each_time():
    assert ask(object(), ["a"]) and ask(object(), ["a"])
