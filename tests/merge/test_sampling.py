"""Which elements are looked at."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.merge.sampling import GROUP_ELEMENTS, choose_samples, group_tensors, spread
from tasks.tensors import TensorView


def view(name: str, *shape: int) -> TensorView:
    return TensorView(name, "F32", shape, Path("file"), 0)


@given(st.integers(1, 10**7), st.integers(1, 10**6))
def test_pieces_lie_apart_inside_the_tensor_and_are_about_as_many_elements_as_wanted(n_elements: int, wanted: int):
    pieces = spread(n_elements, wanted)
    ends = [first + length for first, length in pieces]
    assert pieces[0][0] >= 0 and ends[-1] <= n_elements
    assert all(end <= first for end, (first, _) in zip(ends, pieces[1:], strict=False))
    assert all(0 < length <= REDUCTION_BLOCK for _, length in pieces)
    taken = sum(length for _, length in pieces)
    assert taken == n_elements if wanted >= n_elements else wanted - len(pieces) < taken <= wanted


def test_pieces_are_spread_evenly():
    # 10 blocks of which 4 are wanted: 6 are left out, 1.5 between two of them and 0.75 at either end.
    block = REDUCTION_BLOCK
    assert spread(10 * block, 4 * block) == tuple((first * block // 4, block) for first in (3, 13, 23, 33))
    assert spread(100, 20) == ((40, 20),)


def test_all_of_a_tensor_is_cut_into_blocks():
    assert spread(REDUCTION_BLOCK + 3, 10**9) == ((0, REDUCTION_BLOCK), (REDUCTION_BLOCK, 3))


def test_groups_are_the_parts_of_the_model_from_front_to_back():
    names = ["lm_head.w", "model.embed.w", "model.layers.0.w", "model.layers.10.w", "model.layers.2.w", "norm"]
    names += [f"model.layers.{i}.b" for i in range(11)]
    groups = group_tensors(view(name, 3) for name in names)
    assert list(groups) == ["embeddings", *(f"layer {i}" for i in range(11)), "head"]
    assert [tensor.name for tensor in groups["layer 2"]] == ["model.layers.2.w", "model.layers.2.b"]
    assert [tensor.name for tensor in groups["head"]] == ["lm_head.w", "norm"]


def test_layers_of_several_stacks_bear_the_names_of_these():
    names = ["encoder.block.0.w", "decoder.block.0.w", "decoder.block.1.w", "shared.w"]
    expected = ["embeddings", "decoder.block 0", "decoder.block 1", "encoder.block 0"]
    assert list(group_tensors(view(name, 3) for name in names)) == expected


@pytest.mark.parametrize("n_tensors", [1, 7, 300])
def test_a_part_of_the_model_has_a_budget_and_every_tensor_is_seen(n_tensors: int):
    tensors = [view(f"layers.0.{i}.w", 1000, 1400 + i) for i in range(n_tensors)]
    samples = choose_samples([*tensors, view("layers.0.norm", 2000), view("layers.0.none", 0)])
    assert {sample.tensor.name for sample in samples} == {tensor.name for tensor in tensors} | {"layers.0.norm"}
    assert sum(sample.n_elements for sample in samples) <= max(GROUP_ELEMENTS, 4096 * n_tensors) + 2000
    for sample in samples:
        assert sample.scale * sample.n_elements == pytest.approx(sample.tensor.n_elements)
    assert samples[-1].scale == 1 and samples[-1].n_elements == 2000


def test_without_a_budget_all_elements_are_looked_at_in_pieces_for_several_threads():
    samples = choose_samples([view("layers.0.w", 70, REDUCTION_BLOCK)], budget=None)
    assert [len(sample.pieces) for sample in samples] == [32, 32, 6]
    pieces = [piece for sample in samples for piece in sample.pieces]
    assert pieces == [(number * REDUCTION_BLOCK, REDUCTION_BLOCK) for number in range(70)]
    assert all(sample.scale == 1 for sample in samples)
