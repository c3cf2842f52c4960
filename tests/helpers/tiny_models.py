"""Random models of a few thousand parameters with word tokenizers, saved as real checkpoints are."""

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<unk>", "<s>", "</s>"]
WORDS = ["a", "b", "c", "d", "e", "yes", "no", "question", "answer", "topic", "query:", "document:"]
# As in GPT-2's vocabulary, a word after a space is a token of its own that begins with the space.
VOCABULARY = {token: index for index, token in enumerate([*SPECIAL, *WORDS, *(f" {word}" for word in WORDS)])}


def word_tokenizer(template="$A"):
    """A token per word, the space before it included; `template` says where special tokens stand."""
    backend = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    backend.pre_tokenizer = Split(Regex(" "), behavior="merged_with_next")
    special = [(token, VOCABULARY[token]) for token in SPECIAL if token in template]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=special)
    # No pad token, as with Llama.
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", model_max_length=10**9)


def save_decoder(folder, seed, *, template="<s> $A", tied=True, dtype=torch.float32, max_shard_size="5GB"):
    """A random Llama of two layers that reads 32 tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=tied,
        # Large, so that a random model is far from indifferent and losses differ.
        initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    word_tokenizer(template).save_pretrained(folder)
    return folder


def save_fine_tune(folder, base, seed, *, tokens=()):
    """A fine-tune of a decoder, with tokens of its own, as transformers makes it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    torch.manual_seed(seed)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder, seed, *, pooling="mean", similarity="cosine", prompts=None, dense=False, normalize=False):
    """A random Bert of two layers that reads 16 tokens, as a sentence-transformers folder."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = word_tokenizer("<s> $A </s>")
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(16, pooling_mode=pooling)]
    modules += [Dense(16, 8)] if dense else []
    modules += [Normalize()] if dense or normalize else []
    encoder = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name=similarity, prompts=prompts)
    encoder.save_pretrained(str(folder), create_model_card=False)
    return folder
