"""Batches of texts by their number of tokens."""

from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts that are computed together, longest first, so that little is padded and memory is asked first.

    Args:
        lengths: Tokens of each text.
        batch_tokens: Most tokens of a batch when each text is padded to its longest; a longer text stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        n_texts = max(1, batch_tokens // max(lengths[order[0]], 1))
        yield order[:n_texts]
        order = order[n_texts:]
