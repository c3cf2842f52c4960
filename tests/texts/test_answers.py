"""Token ids are looked up by hand in the vocabulary of the word tokenizer, where a word takes the space before it."""

import logging

import pytest
from tiny_models import VOCABULARY, word_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tasks.errors import ExampleDataError
from tasks.texts.answers import join_answer, tokenise_answers


def ids(*tokens):
    return tuple(VOCABULARY[token] for token in tokens)


def tokenise(prompt, answer, template="$A", max_length=100):
    (found,) = tokenise_answers(word_tokenizer(template), [prompt], [answer], max_length)
    return found.context, found.labels


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("a", "b", "a b"),
        ("a ", "b", "a b"),
        ("a\n", "b", "a\nb"),
        ("a", " b", "a b"),
        ("a", "\nb", "a\nb"),
        ("", "b", "b"),
    ],
)
def test_one_space_stands_between_prompt_and_answer_unless_white_space_is_there(prompt, answer, text):
    assert join_answer(prompt, answer) == text


def test_the_answers_tokens_are_those_behind_the_prompt():
    # The model reads all but the last token; the last two of "a b yes no" are the answer.
    assert tokenise("a b", "yes no") == (ids("a", " b", " yes"), ids(" yes", " no"))


def test_a_token_across_the_border_is_the_answers():
    # "a " alone would be the tokens "a" and <unk>, which the joined text does not have.
    assert tokenise("a ", "yes") == (ids("a"), ids(" yes"))


def test_special_tokens_are_the_tokenizers_own_and_never_part_of_the_answer():
    assert tokenise("a", "yes", "<s> $A </s>") == (ids("<s>", "a"), ids(" yes"))
    assert tokenise("", "yes no", "<s> $A </s>") == (ids("<s>", "yes"), ids("yes", " no"))


def test_a_text_over_the_limit_loses_the_beginning_of_its_prompt_but_no_special_token(caplog):
    caplog.set_level(logging.WARNING)
    context, labels = tokenise("a b c d e", "yes no", "<s> $A </s>", max_length=5)
    assert (context, labels) == (ids("<s>", " d", " e", " yes"), ids(" yes", " no"))
    assert "1 of 1 texts have more than 5 tokens and lose the beginning of their prompt" in caplog.text
    assert tokenise("a b c", "yes", max_length=2) == (ids(" c"), ids(" yes"))


def test_a_text_at_the_limit_is_kept_whole(caplog):
    assert tokenise("a b", "yes", "<s> $A </s>", max_length=4) == (ids("<s>", "a", " b"), ids(" yes"))
    assert not caplog.records


def test_an_answer_over_the_limit_is_refused_with_row_length_and_limit():
    with pytest.raises(ExampleDataError) as caught:
        tokenise_answers(word_tokenizer("<s> $A"), ["a", "b", "c"], ["yes", "a b c d", "a b c d e"], 4)
    assert str(caught.value) == (
        "2 of 3 answers cannot be predicted:\n"
        "  row 2 ('a b c d'): the answer has 4 tokens and needs 5 with what must stand before it, but the limit is 4 "
        "(the smaller of score.max_length and what the model can read)\n"
        "  row 3 ('a b c d e'): the answer has 5 tokens and needs 6 with what must stand before it, but the limit is 4 "
        "(the smaller of score.max_length and what the model can read)"
    )


def test_without_a_special_token_in_front_one_token_of_the_prompt_must_stay():
    assert tokenise("a b", "yes no", max_length=3) == (ids(" b", " yes"), ids(" yes", " no"))
    with pytest.raises(ExampleDataError, match="needs 3 with what must stand before it, but the limit is 2"):
        tokenise("a b", "yes no", max_length=2)


def test_an_empty_answer_is_refused():
    for answer in ("", " "):
        with pytest.raises(ExampleDataError, match=rf"row 1 \('{answer}'\): the answer is empty"):
            tokenise("a", answer)


def test_an_answer_behind_nothing_is_refused():
    with pytest.raises(ExampleDataError, match=r"row 1 \('yes'\): nothing stands before the answer"):
        tokenise("", "yes")


def test_ten_bad_answers_are_listed_and_the_others_counted():
    with pytest.raises(ExampleDataError, match=r"and 2 more$") as caught:
        tokenise_answers(word_tokenizer(), ["a"] * 12, ["a b c d e yes no question answer topic a b"] * 12, 4)
    assert "row 10 ('a b c d e yes no question answer topi...')" in str(caught.value)
    assert "row 11" not in str(caught.value)


def test_texts_that_are_whole_get_neither_a_space_nor_special_tokens():
    tokenizer = word_tokenizer("<s> $A </s>")
    tokenizer.bos_token = "<s>"
    (found,) = tokenise_answers(tokenizer, ["a b"], [" yes"], 10, verbatim=True)
    assert (found.context, found.labels) == (ids("a", " b"), ids(" yes"))
    # "ab" and "yes" are not pulled apart: one unknown word.
    (found,) = tokenise_answers(tokenizer, ["a b"], ["yes"], 10, verbatim=True)
    assert (found.context, found.labels) == (ids("a"), ids("<unk>"))


def test_of_whole_texts_a_leading_bos_token_is_kept():
    tokenizer = word_tokenizer()
    tokenizer.bos_token = "<s>"
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    (found,) = tokenise_answers(tokenizer, ["<s> a b c"], [" yes"], 3, verbatim=True)
    assert (found.context, found.labels) == (ids("<s>", " c"), ids(" yes"))


@pytest.fixture(scope="module")
def t5_tokenizer():
    """As T5's: a space is the mark that begins a token, and </s> ends every text."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁b", "▁yes", "▁no", "s", "▁c"]
    backend = Tokenizer(Unigram([(piece, -float(number)) for number, piece in enumerate(pieces)], unk_id=2))
    backend.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


def test_answers_of_a_t5_tokenizer_begin_behind_the_prompt_and_end_before_its_end_token(t5_tokenizer):
    # ▁a ▁b | ▁yes s: the pieces of "yess" are the answer, </s> is the tokenizer's own.
    (found,) = tokenise_answers(t5_tokenizer, ["a b"], ["yess"], 10)
    assert (found.context, found.labels) == ((4, 5, 6), (6, 8))
    (found,) = tokenise_answers(t5_tokenizer, ["a b c"], ["yes no"], 4)
    assert (found.context, found.labels) == ((5, 9, 6), (6, 7))
