"""Chats as texts: what a chat template writes before the last answer, and that answer."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tasks.errors import ExampleDataError
from tasks.messages import list_lines

# A character for private use: no template and no message has it, so where it comes out is where an answer would.
_MARK = "\ue000"
# Some templates ask for today's date (Llama, Mistral): losses would change from day to day. They are always told the
# one that Llama's writes where it is told none.
_TODAY = date(2024, 7, 26)
_DIRECTIVES = ("%a", "%A", "%b", "%B", "%d", "%-d", "%m", "%-m", "%y", "%Y", "%H", "%I", "%M", "%S", "%p", "%j")
_ASKS = "strftime_now"


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row is a conversation instead of an input with its output."""
    return "messages" in row


def render_chats(tokenizer: Any, chats: Sequence[Sequence[Mapping[str, str]]]) -> tuple[list[str], list[str]]:
    """The text before each chat's last answer, and the answer, as the tokenizer's chat template writes them.

    What the template writes behind the answer (the end of the turn) is left out: it is the same in every chat. A date
    of today is always the same day, so that losses of other days compare.

    Args:
        tokenizer: Of transformers.
        chats: Messages with `role` and `content`; the last one is the assistant's.

    Raises:
        ExampleDataError: the tokenizer has no chat template, or the template refuses or drops messages; by row.
    """
    _check_template(tokenizer)
    prompts: list[str] = []
    answers: list[str] = []
    problems: list[str] = []
    for number, messages in enumerate(chats, start=1):
        try:
            prompt, answer = _render(tokenizer, messages)
        except Exception as error:  # A template is a program: it raises what it likes, by raise_exception() too.
            problems.append(f"row {number}: {error}")
        else:
            prompts.append(prompt)
            answers.append(answer)
    _refuse(tokenizer, problems, len(chats))
    return prompts, answers


def render_prompts(tokenizer: Any, chats: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """The text that a model answers, per chat: the messages and the beginning of the assistant's turn.

    Args:
        tokenizer: Of transformers.
        chats: Messages with `role` and `content`; the last one is the user's.

    Raises:
        ExampleDataError: as `render_chats`.
    """
    _check_template(tokenizer)
    prompts: list[str] = []
    problems: list[str] = []
    for number, messages in enumerate(chats, start=1):
        try:
            prompts.append(_apply(tokenizer, messages, add_generation_prompt=True))
        except Exception as error:  # As above.
            problems.append(f"row {number}: {error}")
    _refuse(tokenizer, problems, len(chats))
    return prompts


def _check_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ExampleDataError(
            f"the rows are chats, but the tokenizer of {tokenizer.name_or_path} has no chat template; add its "
            'chat_template.jinja, or write the rows as {"input", "output"}'
        )


def _refuse(tokenizer: Any, problems: Sequence[str], n_chats: int) -> None:
    if problems:
        raise ExampleDataError(
            f"the chat template of {tokenizer.name_or_path} cannot write {len(problems)} of {n_chats} chats:"
            f"{list_lines(problems)}"
        )


def _apply(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: bool) -> str:
    """What the template writes, the same on every day."""
    template: str = tokenizer.get_chat_template()
    if _ASKS in template:
        # A macro, since transformers takes no function of ours.
        written = "".join(f"|replace('{each}', '{_TODAY.strftime(each)}')" for each in _DIRECTIVES)
        template = f"{{%- macro {_ASKS}(format) -%}}{{{{ format{written} }}}}{{%- endmacro -%}}{template}"
    return str(tokenizer.apply_chat_template([*messages], chat_template=template, tokenize=False, **options))


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """Both texts of one chat; ValueError where the template does not write the answer as it stands."""
    marked = [*messages[:-1], {**messages[-1], "content": _MARK}]
    whole = _apply(tokenizer, messages)
    prompt, _, end = _apply(tokenizer, marked).partition(_MARK)
    answer = whole[len(prompt) : len(whole) - len(end)]
    # Templates may strip white space; those that change more (cut reasoning out, say) are not to be guessed.
    if not (whole.startswith(prompt) and whole.endswith(end)) or answer.strip() != messages[-1]["content"].strip():
        raise ValueError("it does not write the last answer as it stands, so where the answer begins is unknown")
    return prompt, answer
