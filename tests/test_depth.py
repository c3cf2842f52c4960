"""How deep a tensor is, from its name, for the naming of all common architectures."""

import pytest

from tasks.depth import Place, depth_of, locate


@pytest.mark.parametrize(
    ("before", "stack", "part", "behind"),
    [
        (
            "model.embed_tokens.weight",
            "model.layers",
            "self_attn.q_proj.weight",
            ["model.norm.weight", "lm_head.weight"],
        ),
        ("embeddings.LayerNorm.weight", "encoder.layer", "output.dense.weight", ["pooler.dense.weight"]),
        ("0_Transformer/embeddings.word_embeddings.weight", "0_Transformer/encoder.layer", "output.dense.bias", []),
        ("transformer.wte.weight", "transformer.h", "attn.c_attn.weight", ["transformer.ln_f.weight"]),
        ("wpe.weight", "h", "mlp.c_fc.weight", ["ln_f.bias"]),
        ("gpt_neox.embed_in.weight", "gpt_neox.layers", "mlp.dense_h_to_4h.weight", ["embed_out.weight"]),
        ("roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer", "x.weight", ["classifier.dense.weight"]),
        ("distilbert.embeddings.x.weight", "distilbert.transformer.layer", "x.weight", ["classifier.weight"]),
        ("model.tok_embeddings.weight", "model.layers", "attention.wqkv.weight", ["output.weight", "score.weight"]),
        ("transformer.word_embeddings_layernorm.weight", "transformer.h", "x.weight", ["transformer.ln_f.weight"]),
    ],
)
def test_layers_go_from_0_to_1_what_is_before_has_0_what_is_behind_1(
    before: str, stack: str, part: str, behind: list[str]
):
    layers = [f"{stack}.{layer}.{part}" for layer in range(12)]
    # Files list tensors in the order of the alphabet, so layer 10 comes before layer 2.
    depths = depth_of(sorted([before, *layers, *behind]))
    assert depths[before] == 0.0
    assert [depths[name] for name in layers] == pytest.approx([layer / 11 for layer in range(12)])
    assert [depths[name] for name in behind] == [1.0] * len(behind)


def test_encoder_and_decoder_of_a_t5_each_go_from_0_to_1():
    names = [f"{half}.block.{layer}.layer.{part}.x.weight" for half, n in (("encoder", 3), ("decoder", 2))
             for layer in range(n) for part in range(2)]  # fmt: skip
    depths = depth_of([*names, "shared.weight", "encoder.embed_tokens.weight", "encoder.final_layer_norm.weight"])
    assert [depths[f"encoder.block.{layer}.layer.1.x.weight"] for layer in range(3)] == [0.0, 0.5, 1.0]
    assert [depths[f"decoder.block.{layer}.layer.0.x.weight"] for layer in range(2)] == [0.0, 1.0]
    assert depths["shared.weight"] == depths["encoder.embed_tokens.weight"] == 0.0
    assert depths["encoder.final_layer_norm.weight"] == 1.0


def test_only_the_first_number_counts_so_experts_are_as_deep_as_their_layer():
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w1.weight" for layer in range(2) for expert in range(8)]
    places = locate(names)
    assert places["model.layers.1.mlp.experts.7.w1.weight"] == Place(1.0, "model.layers", 1)
    assert places["model.layers.0.mlp.experts.7.w1.weight"] == Place(0.0, "model.layers", 0)


def test_a_single_layer_is_the_last_one():
    # As in mergekit, whose t of a single layer is 1.
    assert depth_of(["model.layers.0.x.weight", "model.embed_tokens.weight"]) == {
        "model.layers.0.x.weight": 1.0, "model.embed_tokens.weight": 0.0,
    }  # fmt: skip


def test_numbers_with_gaps_are_parts_of_a_head():
    # A Sequential of linear, activation, linear has tensors 0 and 2.
    depths = depth_of(["classifier.0.weight", "classifier.2.weight", "layers.0.w.weight", "layers.1.w.weight"])
    assert depths["classifier.0.weight"] == depths["classifier.2.weight"] == 1.0
    assert depths["layers.0.w.weight"] == 0.0


def test_a_module_of_sentence_transformers_is_not_a_layer():
    assert locate(["2_Dense/linear.weight"])["2_Dense/linear.weight"] == Place(1.0)
