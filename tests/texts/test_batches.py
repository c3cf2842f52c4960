import logging
import weakref

import pytest
import torch

from tasks.texts.batches import compute_batches, token_batches


def test_batches_hold_a_budget_of_padded_tokens_longest_first():
    # 4 + 4 tokens when the three is padded, then 2 + 2 + 2 in 8.
    assert list(token_batches([2, 3, 4, 1, 2], 8)) == [[2, 1], [0, 4, 3]]


def test_a_text_over_the_budget_is_a_batch_by_itself():
    assert list(token_batches([1, 9, 0], 4)) == [[1], [0, 2]]
    assert list(token_batches([], 4)) == []


def test_out_of_memory_halves_the_batch_for_good_and_loses_no_text(caplog):
    caplog.set_level(logging.INFO)
    tried = []

    def compute(batch):
        tried.append(list(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [-index for index in batch]

    found = list(compute_batches([2] * 7, 12, compute))
    # Six texts fit into 12 tokens, then three (one of two and a half is too many), then one, to the end.
    assert tried == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [0], [1], [2], [3], [4], [5], [6]]
    assert [(batch, values) for batch, values in found] == [([index], [-index]) for index in range(7)]
    assert "out of memory with 6 texts of up to 2 tokens; going on with 6 tokens per batch" in caplog.text
    assert caplog.text.count("out of memory") == 2


def test_shorter_texts_use_the_smaller_budget_to_the_full():
    def compute(batch):
        if len(batch) > 1 and 0 in batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return None

    # Two texts of 8 are too many, so 8 tokens are the budget: eight texts of 1.
    assert [batch for batch, _ in compute_batches([8, 8, *[1] * 8], 16, lambda batch: compute(batch) or batch)] == [
        [0], [1], [2, 3, 4, 5, 6, 7, 8, 9]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_single_text_that_does_not_fit_is_an_error(error):
    tried = []

    def compute(batch):
        tried.append(len(batch))
        raise error

    with pytest.raises(type(error)):
        list(compute_batches([4, 4], 8, compute))
    assert tried == [2, 1]


def test_other_errors_are_not_tried_again():
    def compute(batch):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(compute_batches([1, 1], 8, compute))


def test_memory_of_the_failed_batch_is_free_before_the_next_is_tried():
    alive = weakref.WeakSet()

    def compute(batch):
        assert not alive, "the error still holds what the failed batch had made"
        tensor = torch.zeros(4)
        alive.add(tensor)
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    assert [batch for batch, _ in compute_batches([1, 1], 2, compute)] == [[0], [1]]
