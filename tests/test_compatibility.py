from pathlib import Path

from tasks.compatibility import MAX_LISTED, quantisation_problem, tensor_mismatches
from tasks.tensors import TensorView


def views(**tensors: tuple[str, tuple[int, ...]]) -> dict[str, TensorView]:
    return {name: TensorView(name, dtype, shape, Path("x"), 0) for name, (dtype, shape) in tensors.items()}


def test_equal_names_and_shapes_fit_whatever_the_floating_dtype():
    assert tensor_mismatches(views(w=("F32", (2, 3))), views(w=("BF16", (2, 3))), "base", "news") == []


def test_another_shape_is_named_with_both_sides():
    problems = tensor_mismatches(views(w=("F32", (2, 3))), views(w=("F32", (2, 4))), "base", "news")
    assert problems == [
        "tensor 'w': news has it with shape [2, 4] (floating, F32), base with shape [2, 3] (floating, F32)"
    ]


def test_only_rows_may_differ_where_rows_are_looked_up_by_token():
    base = views(w=("F32", (2, 3)), head=("F32", (2, 3)), bias=("F32", (2,)), flat=("F32", (2,)))
    candidate = views(w=("F32", (5, 3)), head=("F32", (5, 3)), bias=("F32", (5,)), flat=("F32", ()))
    problems = tensor_mismatches(base, candidate, "base", "news", any_rows={"w", "bias", "flat"})
    assert [problem.partition(":")[0] for problem in problems] == ["tensor 'head'", "tensor 'flat'"]


def test_a_floating_tensor_against_an_integer_one_does_not_fit():
    (problem,) = tensor_mismatches(views(w=("F32", (2,))), views(w=("I8", (2,))), "base", "news")
    assert "news has it with shape [2] (integer or boolean, I8), base with shape [2] (floating, F32)" in problem


def test_missing_and_extra_floating_tensors_are_named():
    problems = tensor_mismatches(views(a=("F32", (2,))), views(b=("F32", (2,))), "base", "news")
    assert problems == [
        "tensor 'a': news lacks it; base has it with shape [2] (floating, F32)",
        "tensor 'b': news has it with shape [2] (floating, F32); base lacks it",
    ]


def test_an_integer_buffer_that_one_side_lacks_is_no_mismatch():
    with_buffer, without = views(w=("F32", (2,)), position_ids=("I64", (1, 9))), views(w=("F32", (2,)))
    assert tensor_mismatches(with_buffer, without, "base", "news") == []
    assert tensor_mismatches(without, with_buffer, "base", "news") == []


def test_an_integer_buffer_of_another_shape_does_not_fit():
    (problem,) = tensor_mismatches(views(ids=("I64", (1, 9))), views(ids=("I64", (1, 5))), "base", "news")
    assert "[1, 5]" in problem and "[1, 9]" in problem


def test_a_long_list_is_cut_with_a_true_count():
    base = {name: view for i in range(47) for name, view in views(**{f"w{i}": ("F32", (2,))}).items()}
    problems = tensor_mismatches(base, {}, "base", "news")
    assert len(problems) == MAX_LISTED + 1
    assert problems[-1] == f"and {47 - MAX_LISTED} more tensors of news and base that do not agree"


SEPARATE = views(
    **{f"layers.{i}.mlp.experts.{e}.up_proj.weight": ("BF16", (4, 2)) for i in range(9) for e in range(8)},
    w=("F32", (2,)),
)
FUSED = views(
    **{
        f"layers.{i}.mlp.experts.{name}": ("BF16", (8, 4, 2))
        for i in range(9)
        for name in ("gate_up_proj", "down_proj")
    },
    w=("F32", (2,)),
)


def test_experts_kept_apart_and_together_are_told_in_one_sentence():
    assert tensor_mismatches(FUSED, SEPARATE, "base", "news") == [
        "experts: news has a tensor for each (transformers 4), base has those of a layer in one tensor "
        "(transformers 5); load both with the same version of transformers and save them again"
    ]
    assert "base has a tensor for each" in tensor_mismatches(SEPARATE, FUSED, "base", "news")[0]


def test_what_else_differs_beside_the_experts_is_still_told():
    other = {**SEPARATE, **views(w=("F32", (3,)))}
    problems = tensor_mismatches(FUSED, other, "base", "news")
    assert len(problems) == 2 and problems[1].startswith("tensor 'w': news has it with shape [3]")


def test_equal_layouts_of_experts_fit():
    assert tensor_mismatches(SEPARATE, SEPARATE, "base", "news") == []
    assert tensor_mismatches(FUSED, FUSED, "base", "news") == []


def test_a_quantised_checkpoint_is_told_by_its_config():
    problem = quantisation_problem({"quantization_config": {"quant_method": "gptq"}}, "news")
    assert problem and problem.startswith(
        "news: its config.json says that its weights are quantised (quant_method gptq)"
    )
    assert "unknown" in (quantisation_problem({"quantization_config": True}, "news") or "")
    assert quantisation_problem({"dtype": "bfloat16"}, "news") is None
