import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tasks.arithmetic.block import Block
from tasks.errors import CheckpointError, NonFiniteError
from tasks.merge.non_finite import is_finite

Stream = Callable[..., bytes]


@pytest.mark.parametrize("dtype", ["base", "bfloat16", "float16"])
def test_threads_and_block_size_change_no_byte(make_checkpoint, random_tensors, stream: Stream, dtype: str):
    checkpoints = [make_checkpoint("a", random_tensors(1)), make_checkpoint("b", random_tensors(2, torch.bfloat16))]
    outputs = {
        stream(*checkpoints, dtype=dtype, n_threads=t, block_elements=b) for t in (1, 3) for b in (7, 256, 10**5)
    }
    assert len(outputs) == 1


def test_progress_ends_at_all_tensor_bytes(make_checkpoint, random_tensors, stream: Stream):
    seen: list[tuple[int, int]] = []
    checkpoint = make_checkpoint("a", random_tensors(1))
    stream(checkpoint, block_elements=8, report=lambda done, total: seen.append((done, total)))
    n_bytes = sum(tensor.nbytes for tensor in random_tensors(1).values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (n_bytes, n_bytes)


def test_the_number_of_torch_threads_is_put_back(make_checkpoint, stream: Stream):
    before = torch.get_num_threads()
    stream(make_checkpoint("a", {"w": torch.ones(3)}))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_number_that_is_none_is_named_by_tensor_and_candidate(
    make_checkpoint, stream: Stream, value: float, dtype: torch.dtype
):
    broken = torch.ones(5000, dtype=dtype)
    broken[4321] = value
    good = make_checkpoint("good", {"w": torch.ones(5000, dtype=dtype)})
    with pytest.raises(NonFiniteError, match=r"tensor 'w' holds NaN or infinity in broken \("):
        stream(good, make_checkpoint("broken", {"w": broken}))


def test_infinities_that_cancel_are_still_found(make_checkpoint, stream: Stream):
    first = make_checkpoint("first", {"w": torch.tensor([torch.inf])})
    second = make_checkpoint("second", {"w": torch.tensor([-torch.inf])})
    with pytest.raises(NonFiniteError, match=r"in first \(.*, second \("):
        stream(first, second)


def test_a_sum_that_overflows_the_dtype_of_the_output_is_told_as_that(make_checkpoint, stream: Stream):
    checkpoint = make_checkpoint("big", {"w": torch.tensor([1e5, 1.0])})
    with pytest.raises(
        NonFiniteError, match=r"'w': all inputs are finite, but their combination reaches 1e\+05 and overflows F16"
    ):
        stream(checkpoint, dtype="float16")


@given(
    st.lists(st.floats(width=16), min_size=1, max_size=50),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
@settings(max_examples=100, deadline=None)
def test_the_quick_check_agrees_with_the_exact_one(values: list[float], dtype: torch.dtype):
    block = torch.tensor(values, dtype=dtype)
    assert is_finite(block) == bool(torch.isfinite(block).all())
    name = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
    read = Block(memoryview(bytearray(block.view(torch.uint8).numpy())), name, len(block))
    assert is_finite(read) == is_finite(block)


def test_finite_numbers_whose_sum_overflows_are_finite():
    assert is_finite(torch.full((10,), 3e38))
    assert is_finite(torch.full((10,), 3e38, dtype=torch.bfloat16))
    assert is_finite(torch.full((10,), 60000.0, dtype=torch.float16))


@pytest.mark.parametrize("other", [torch.tensor([1, 2, 4]), torch.tensor([1, 2, 3], dtype=torch.int32)])
def test_integers_are_the_bases_and_a_difference_is_told(
    make_checkpoint, stream: Stream, load_all, caplog: pytest.LogCaptureFixture, tmp_path: Path, other: Tensor
):
    base = make_checkpoint("base", {"ids": torch.tensor([1, 2, 3]), "mask": torch.tensor([True]), "w": torch.ones(2)})
    news = make_checkpoint("news", {"ids": other, "mask": torch.tensor([True]), "w": torch.ones(2)})
    with caplog.at_level(logging.WARNING):
        stream(base, news, block_elements=2)
    merged = load_all(max(tmp_path.glob("streamed-*")))
    assert merged["ids"].tolist() == [1, 2, 3]
    assert "the base's are kept though these candidates have others: ids (news)" in caplog.text
    assert "mask" not in caplog.text


def test_a_buffer_that_only_the_base_has_is_copied(
    make_checkpoint, stream: Stream, load_all, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    base = make_checkpoint("base", {"ids": torch.tensor([1, 2]), "w": torch.ones(2)})
    stream(base, make_checkpoint("news", {"w": torch.ones(2)}))
    assert load_all(max(tmp_path.glob("streamed-*")))["ids"].tolist() == [1, 2]
    assert caplog.text == ""


def test_many_differing_buffers_are_listed_in_part(make_checkpoint, stream: Stream, caplog: pytest.LogCaptureFixture):
    base = make_checkpoint("base", {f"ids{i:02d}": torch.tensor([0]) for i in range(13)})
    stream(base, make_checkpoint("news", {f"ids{i:02d}": torch.tensor([1]) for i in range(13)}))
    assert "ids09 (news) and 3 more" in caplog.text


def test_a_source_that_was_cut_after_its_header_was_read_is_named(make_checkpoint, stream: Stream):
    base, news = (make_checkpoint(name, {"w": torch.ones(5000)}) for name in ("base", "news"))
    file = news.folder / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"news/model\.safetensors: it ends at byte 1000, expected \d+ more"):
        stream(base, news, before=lambda: os.truncate(file, 1000))
