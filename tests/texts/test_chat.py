"""Texts are what the template would write, by hand."""

import pytest
from tiny_models import VOCABULARY, word_tokenizer

from tasks.errors import ExampleDataError
from tasks.texts.answers import tokenise_answers
from tasks.texts.chat import is_chat, render_chats, render_prompts

# Each message is its role's word, a space, its text without outer white space, and </s>.
TEMPLATE = (
    "<s>{% for m in messages %}{{ ' question ' if m['role'] == 'user' else ' answer ' }}{{ m['content'] | trim }}"
    "{{ '</s>' }}{% endfor %}"
)
CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "b c"},
    {"role": "assistant", "content": " yes no\n"},
]


@pytest.fixture
def tokenizer():
    tokenizer = word_tokenizer("<s> $A")
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer


def ids(*tokens):
    return tuple(VOCABULARY[token] for token in tokens)


def test_the_answer_is_the_last_message_as_the_template_writes_it(tokenizer):
    prompts, answers = render_chats(tokenizer, [CHAT, CHAT[:2]])
    assert prompts == ["<s> question a</s> answer yes</s> question b c</s> answer ", "<s> question a</s> answer "]
    assert answers == ["yes no", "yes"]


def test_an_answer_that_stands_in_the_template_or_before_is_not_mixed_up(tokenizer):
    chat = [{"role": "user", "content": "answer"}, {"role": "assistant", "content": "answer"}]
    assert render_chats(tokenizer, [chat]) == (["<s> question answer</s> answer "], ["answer"])


def test_the_tokens_of_a_chat_are_the_templates_own_and_its_answer_begins_by_offsets(tokenizer):
    prompts, answers = render_chats(tokenizer, [CHAT[:2]])
    (found,) = tokenise_answers(tokenizer, prompts, answers, 20, verbatim=True)
    # One <s>, the template's: the tokenizer would add a second. "answer " and "yes" meet in the token " yes".
    assert found.context == ids("<s>", " question", " a", "</s>", " answer")
    assert found.labels == ids(" yes")


def test_a_long_chat_loses_its_beginning_but_not_its_bos_token_or_answer(tokenizer):
    prompts, answers = render_chats(tokenizer, [CHAT])
    (found,) = tokenise_answers(tokenizer, prompts, answers, 6, verbatim=True)
    assert found.context == ids("<s>", " c", "</s>", " answer", " yes")
    assert found.labels == ids(" yes", " no")


def test_without_a_template_the_tokenizer_is_named():
    tokenizer = word_tokenizer()
    tokenizer.name_or_path = "models/law"
    with pytest.raises(ExampleDataError, match="the tokenizer of models/law has no chat template; add its"):
        render_chats(tokenizer, [CHAT])


def test_what_a_template_refuses_or_changes_is_listed_by_row(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace(
        "<s>{%", "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}<s>{%", 1
    ).replace("| trim", "| trim | replace('no', '')")
    system = [{"role": "system", "content": "a"}, *CHAT]
    with pytest.raises(
        ExampleDataError,
        match=r"cannot write 2 of 3 chats:\n  row 1: no system turns\n  row 3: it does not write the last",
    ):
        render_chats(tokenizer, [system, CHAT[:2], CHAT])


def test_a_template_that_drops_the_answer_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(ExampleDataError, match="row 1: it does not write the last answer as it stands"):
        render_chats(tokenizer, [CHAT])


def test_a_chat_is_a_row_with_messages():
    assert is_chat({"messages": CHAT})
    assert not is_chat({"input": "a", "output": "b"})


def test_a_prompt_ends_where_the_assistants_turn_begins(tokenizer):
    tokenizer.chat_template = TEMPLATE + "{% if add_generation_prompt %}{{ ' answer ' }}{% endif %}"
    assert render_prompts(tokenizer, [CHAT[:3], CHAT[:1]]) == [
        "<s> question a</s> answer yes</s> question b c</s> answer ",
        "<s> question a</s> answer ",
    ]


def test_prompts_that_the_template_refuses_are_named(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no') if messages | length > 1 }}"
    with pytest.raises(ExampleDataError, match="cannot write 1 of 2 chats:\n  row 2: no"):
        render_prompts(tokenizer, [CHAT[:1], CHAT[:3]])
    tokenizer.chat_template = None
    with pytest.raises(ExampleDataError, match="has no chat template"):
        render_prompts(tokenizer, [CHAT[:1]])


def test_a_date_that_a_template_writes_is_the_same_on_every_day(tokenizer):
    # As the templates of Llama and Mistral ask for it.
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + TEMPLATE
    assert render_chats(tokenizer, [CHAT[:2]])[0] == ["26 Jul 2024 <s> question a</s> answer "]
    assert render_prompts(tokenizer, [CHAT[:1]]) == ["26 Jul 2024 <s> question a</s>"]
