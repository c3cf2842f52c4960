import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tasks.arithmetic.random_masks import PositionalNumbers, as_chance

N = 1 << 18


def numbers(seed: int = 0, tensor: str = "t", candidate: str = "c", first: int = 0, n: int = N) -> np.ndarray:
    return PositionalNumbers(seed, tensor, candidate).fill(first, np.empty(n, np.uint32))


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """In standard errors of independent numbers."""
    return float(np.corrcoef(left, right)[0, 1]) * math.sqrt(len(left))


def test_the_numbers_never_change():
    # Bytes of a merge depend on them. First the formula once more, in Python's integers.
    digest = hashlib.blake2b(json.dumps([7, "w", "a", 0]).encode(), digest_size=8).digest()
    first_key, second_key = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    expected: list[int] = []
    for position in range(5, 9):
        x = (position * 0x9E3779B9 + first_key) % 2**32
        x = ((x ^ x >> 16) * 0x7FEB352D % 2**32) ^ second_key
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        expected.append(x ^ x >> 16)
    found = numbers(7, "w", "a", first=5, n=4).tolist()
    assert found == expected == [3950363739, 3016799746, 1828295083, 3038239787]


@pytest.mark.parametrize("first", [0, 5, 2**32 - 100_000, 2**33 - 1])
def test_blocks_of_any_size_give_the_same_numbers(first: int):
    whole = numbers(first=first)
    for block in (1, 77_777, 65_536):
        starts = range(0, N if block > 1 else 3, block)
        parts = [numbers(first=first + start, n=min(block, N - start)) for start in starts]
        assert np.array_equal(np.concatenate(parts), whole[: sum(map(len, parts))])


def test_threads_give_the_same_numbers():
    stream = PositionalNumbers(0, "t", "c")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda first: stream.fill(first, np.empty(4096, np.uint32)), range(0, N, 4096)))
    assert np.array_equal(np.concatenate(parts), numbers())


@pytest.mark.parametrize("shift", [0, 12, 24])
@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_all_bits_are_uniform(seed: int, shift: int):
    counts = np.bincount((numbers(seed) >> shift) & 0xFF, minlength=256)
    chi_square = float(np.sum((counts - N / 256) ** 2 / (N / 256)))
    # 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert abs(chi_square - 255) < 5 * 22.6


def test_their_mean_is_that_of_uniform_numbers():
    # The standard error of a mean of uniform numbers is 1 / sqrt(12 n).
    assert abs(numbers().mean() / 2**32 - 0.5) < 4 / math.sqrt(12 * N)


def test_neighbours_are_independent():
    found = numbers(n=N + 4096).astype(np.float64)
    for distance in (1, 2, 3, 8, 64, 768, 1024, 2048, 4096):
        assert abs(correlation(found[:N], found[distance : N + distance])) < 4.5, distance


@pytest.mark.parametrize("distance", [1, 2, 16, 32, 64, 768, 1024, 2048, 3072, 4096, 65_536])
def test_pairs_at_a_distance_are_uniform_in_the_square(distance: int):
    counts = np.zeros(1024)
    for candidate in "abcd":
        upper = (numbers(candidate=candidate) >> 27).astype(np.int64)
        counts += np.bincount(upper[:-distance] << 5 | upper[distance:], minlength=1024)
    expected = counts.sum() / 1024
    chi_square = float(np.sum((counts - expected) ** 2 / expected))
    assert abs(chi_square - 1023) < 5 * math.sqrt(2 * 1023)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"tensor": "u"}, {"candidate": "d"}, {"first": 2**32}], ids=lambda other: next(iter(other))
)
def test_another_seed_tensor_candidate_or_high_position_gives_independent_numbers(other: dict[str, int | str]):
    left, right = numbers(), numbers(**other)  # pyright: ignore[reportArgumentType]
    assert abs(correlation(left.astype(np.float64), right.astype(np.float64))) < 4.5
    # Every bit of one against the same bit of the other.
    for bit in range(32):
        differ = int(np.count_nonzero((left ^ right) >> bit & 1))
        assert abs(differ - N / 2) < 5 * math.sqrt(N) / 2, bit


def test_names_cannot_run_into_each_other():
    assert not np.array_equal(numbers(tensor="ab", candidate="c", n=8), numbers(tensor="a", candidate="bc", n=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_an_element_is_kept_whole_with_its_probability(dtype: torch.dtype, probability: float):
    vector = torch.arange(1, N + 1, dtype=dtype)
    whole = vector.clone()
    PositionalNumbers(0, "t", "c").keep(0, vector, as_chance(probability))
    kept = vector != 0
    assert torch.equal(vector[kept], whole[kept])
    deviation = math.sqrt(N * probability * (1 - probability))
    assert abs(int(kept.sum()) - N * probability) <= 4 * deviation


def test_every_element_may_have_its_own_probability():
    chances = np.where(np.arange(N) % 2, as_chance(0.9), as_chance(0.2)).astype(np.int32)
    vector = torch.ones(N)
    PositionalNumbers(0, "t", "c").keep_each(0, vector, chances, rescale=False)
    assert vector[1::2].mean().item() == pytest.approx(0.9, abs=0.005)
    assert vector[::2].mean().item() == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_may_be_divided_by_its_probability(dtype: torch.dtype):
    chances = np.random.default_rng(0).integers(1, 2**31, N).astype(np.int32)
    vector = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=dtype)
    kept, rescaled = vector.clone(), vector.clone()
    stream = PositionalNumbers(0, "t", "c")
    stream.keep_each(2**32 - 5, kept, chances, rescale=False)
    stream.keep_each(2**32 - 5, rescaled, chances, rescale=True)
    # Each step rounded by itself, as numpy does.
    real = kept.numpy().dtype.type
    expected = kept.numpy() / (chances.astype(real) * real(2.0**-31))
    assert np.array_equal(rescaled.numpy(), expected)
    assert 0.45 < float((rescaled != 0).double().mean()) < 0.55
