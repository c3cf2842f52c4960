"""Tokens of texts that were tokenised before: candidates of one base share their tokenizer, and read the same texts."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

Result = TypeVar("Result")

MAX_RESULTS = 4
MAX_CHARACTERS = 2 * 10**7
"""Of the texts of one result: of more, the tokens would take gigabytes, and are made again."""

_results: OrderedDict[str, object] = OrderedDict()
_digests: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def tokenise_once(
    tokenizer: Any, what: Sequence[object], texts: Sequence[Sequence[str]], tokenise: Callable[[], Result]
) -> Result:
    """What `tokenise()` gives, or gave for a tokenizer of the same content; the last few results are kept.

    Args:
        tokenizer: Of transformers, fast; not to be changed after its first use.
        what: All else that the result depends on: which function, which limits; told apart by their `repr`.
        texts: All texts, in their lists.
        tokenise: What it returns is shared by all callers, and must not be changed. Errors are not kept.
    """
    n_characters = sum(len(text) for part in texts for text in part)
    if n_characters > MAX_CHARACTERS or not hasattr(tokenizer, "backend_tokenizer"):
        return tokenise()
    key = _key_of(tokenizer, what, texts)
    if key not in _results:
        _results[key] = tokenise()
    _results.move_to_end(key)
    while len(_results) > MAX_RESULTS:
        _results.popitem(last=False)
    return cast("Result", _results[key])


def _key_of(tokenizer: Any, what: Sequence[object], texts: Sequence[Sequence[str]]) -> str:
    # What transformers adds to the backend on the way.
    own = [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.truncation_side, tokenizer.model_input_names]
    # Whether the name of a special token in a text is that token; told to the backend at each call.
    own.append(getattr(tokenizer, "split_special_tokens", None))
    # A translator's target side gets the mark of its language only while it is tokenised.
    own.append(getattr(tokenizer, "tgt_lang", None))
    digest = hashlib.sha256(repr([_digest_of(tokenizer), own, *what]).encode())
    for part in texts:
        digest.update(f"\0{len(part)}".encode())
        for text in part:
            content = text.encode("utf-8", "surrogatepass")
            digest.update(f"\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _digest_of(tokenizer: Any) -> str:
    """Of the tokenizer's content, remembered by object: to write out 128 000 tokens takes 0.1 s."""
    if tokenizer not in _digests:
        # Left over from the last call; each call sets both anew.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        _digests[tokenizer] = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return _digests[tokenizer]
