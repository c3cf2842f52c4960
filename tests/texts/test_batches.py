from tasks.texts.batches import token_batches


def test_batches_hold_a_budget_of_padded_tokens_longest_first():
    # 4 + 4 tokens when the three is padded, then 2 + 2 + 2 in 8.
    assert list(token_batches([2, 3, 4, 1, 2], 8)) == [[2, 1], [0, 4, 3]]


def test_a_text_over_the_budget_is_a_batch_by_itself():
    assert list(token_batches([1, 9, 0], 4)) == [[1], [0, 2]]
    assert list(token_batches([], 4)) == []
