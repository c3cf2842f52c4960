"""Against the softmax of all logits of plain transformers, in architectures that differ in what makes their logits."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import tasks.losses.labels
from tasks.losses.labels import Labels, label_log_probabilities

_SIZES = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32, "initializer_range": 0.5, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_BART = {
    "vocab_size": 24, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32,
    "init_std": 0.5,
}  # fmt: skip
_T5 = {"vocab_size": 24, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def bart_with_bias():
    """Its logits have a bias that no configuration tells of; most checkpoints hold zeros."""
    model = BartForConditionalGeneration(BartConfig(**_BART))
    model.final_logits_bias.normal_()
    return model


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5, bos_token_id=1, eos_token_id=2)
    ),
    "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**_SIZES, head_dim=8, final_logit_softcapping=3.0)),
    "scaled": lambda: CohereForCausalLM(CohereConfig(**_SIZES, logit_scale=0.5)),
    "divided": lambda: GraniteForCausalLM(GraniteConfig(**_SIZES, logits_scaling=4.0)),
    "biased encoder-decoder": bart_with_bias,
    "encoder-decoder": lambda: T5ForConditionalGeneration(T5Config(**_T5)),
}
PLAIN = ["llama", "gpt2", "encoder-decoder"]


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(1)
    return MODELS[request.param]().eval().requires_grad_(False)


def arguments_of(model):
    """Two rows of 9 and 6 tokens; of an encoder-decoder the decoder reads 7."""
    torch.manual_seed(2)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    arguments = {"input_ids": torch.randint(3, 24, (2, 9)), "attention_mask": mask}
    if model.config.is_encoder_decoder:
        arguments["decoder_input_ids"] = torch.randint(3, 24, (2, 7))
    return arguments


def some_labels():
    """Seven places, at different positions of both rows; the second has two labels, the third none."""
    labels = Labels()
    for row, position, tokens in [(0, 2, [5]), (0, 3, [6, 7]), (0, 4, []), (0, 6, [8]), (1, 0, [9]), (1, 1, [4]),
                                  (1, 5, [3])]:  # fmt: skip
        labels.add_place(row, position, tokens)
    return labels


def from_all_logits(model, arguments):
    with torch.no_grad():
        everything = model(**arguments, use_cache=False).logits.double().log_softmax(-1)
    asked = [(0, 2, 5), (0, 3, 6), (0, 3, 7), (0, 6, 8), (1, 0, 9), (1, 1, 4), (1, 5, 3)]
    return [float(everything[place]) for place in asked]


@pytest.mark.parametrize("chunk_numbers", [1, 2 * 24, 2**24])
def test_log_probabilities_are_those_of_all_logits_however_they_are_made(model, chunk_numbers, monkeypatch):
    monkeypatch.setattr(tasks.losses.labels, "CHUNK_NUMBERS", chunk_numbers)
    arguments = arguments_of(model)
    expected = from_all_logits(model, arguments)
    for _ in range(2):  # the second time it is known what follows the output embedding
        found = label_log_probabilities(model, arguments, some_labels())
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_of_few_places_the_model_makes_the_logits_in_one_go(model):
    labels = Labels()
    labels.add_place(0, 6, [8])
    found = label_log_probabilities(model, arguments_of(model), labels)
    assert found.tolist() == pytest.approx(from_all_logits(model, arguments_of(model))[3:4], abs=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_logits_are_made_at_the_labels_only_a_bounded_number_at_once(name, monkeypatch):
    monkeypatch.setattr(tasks.losses.labels, "CHUNK_NUMBERS", 3 * 24)
    model, made = MODELS[name]().eval(), []
    head = model.get_output_embeddings()
    make = head.forward
    monkeypatch.setattr(head, "forward", lambda x: made.append(tuple(x.shape[:-1])) or make(x))
    label_log_probabilities(model, arguments_of(model), some_labels())
    # Four places twice, by the model and alone, which must agree; then seven places, three at a time.
    assert made == [(1, 4), (1, 4), (3,), (3,), (1,)]


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had which was made meanwhile."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.most = max(self.most, made.numel() if isinstance(made, torch.Tensor) else 0)
        return made


def test_many_labels_at_a_place_take_no_more_memory_than_one(monkeypatch):
    monkeypatch.setattr(tasks.losses.labels, "CHUNK_NUMBERS", 2 * 24)
    model = MODELS["llama"]().eval()
    labels = Labels()
    for position in range(8):
        labels.add_place(0, position, list(range(20)))
    with Largest() as seen:
        found = label_log_probabilities(model, arguments_of(model), labels)
    with torch.no_grad():
        expected = model(**arguments_of(model)).logits[0, :8].double().log_softmax(-1)[:, :20]
    assert found.tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-5)
    # The labels themselves are the most: the logits of two places, times twenty labels each, would be 960 numbers.
    assert seen.most < 600


def test_a_model_that_does_more_than_its_output_embedding_is_run_once_per_batch_from_then_on():
    model = MODELS["capped"]().eval()
    runs = []
    model.model.register_forward_hook(lambda *_: runs.append(1))
    for expected in (2, 3, 4):
        label_log_probabilities(model, arguments_of(model), some_labels())
        assert len(runs) == expected


def test_what_has_no_output_embedding_or_feeds_it_otherwise_makes_all_logits():
    model = MODELS["llama"]().eval().requires_grad_(False)
    arguments = arguments_of(model)
    expected = from_all_logits(model, arguments)

    class Bare:
        """No way to ask for its output embedding."""

        def __call__(self, **inputs):
            return model(**inputs)

    class Flat(LlamaForCausalLM):
        """Its output embedding gets all tokens of all rows as one list."""

        def forward(self, input_ids, attention_mask, use_cache):
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)[0]
            logits = self.lm_head(hidden.flatten(0, 1)).view(*input_ids.shape, -1)
            return type(model(**arguments))(logits=logits)

    flat = Flat(model.config).eval().requires_grad_(False)
    flat.load_state_dict(model.state_dict())
    for other in (Bare(), flat):
        assert label_log_probabilities(other, arguments, some_labels()).tolist() == pytest.approx(expected, abs=1e-5)


def test_no_hook_is_left_on_a_model_whose_forward_fails():
    model = MODELS["llama"]().eval()
    with pytest.raises(IndexError):
        label_log_probabilities(model, {"input_ids": torch.full((1, 3), 99)}, some_labels())
    assert not model.lm_head._forward_pre_hooks


def test_softmax_is_taken_in_float32_of_a_bfloat16_model():
    model = MODELS["llama"]().to(torch.bfloat16).eval().requires_grad_(False)
    arguments = arguments_of(model)
    found = label_log_probabilities(model, arguments, some_labels()).tolist()
    # Logits of bfloat16 in either case; a softmax in bfloat16 would be off by up to 1 %.
    assert found == pytest.approx(from_all_logits(model, arguments), rel=2e-3, abs=2e-2)
