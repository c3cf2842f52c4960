"""Formulas that see a tensor before they write it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tasks.arithmetic.dot_products import DotProducts
from tasks.arithmetic.linear import weighted_sum
from tasks.arithmetic.method import TensorInputs
from tasks.errors import NonFiniteError

BLOCK = 64 * 1024


class Normalised:
    """The average, divided by the length of the first candidate, which is measured in the first of two passes."""

    n_passes = 2
    whole_rows = False

    def __init__(self, inputs: TensorInputs):
        self.inputs = inputs
        self.calls: list[tuple[int, int, int]] = []
        self.products = DotProducts(1)

    def observe(self, number: int, first: int, base: Tensor | None, candidates: Sequence[Tensor]) -> None:
        assert base is None
        self.calls.append((number, first, len(candidates[0])))
        if number == 0:
            self.products.add([candidates[0]])

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        self.calls.append((self.n_passes, first, len(candidates[0])))
        return weighted_sum(candidates, self.inputs.weights, out).div_(self.products.norm(0))


class ByRow(Normalised):
    n_passes = 1
    whole_rows = True

    def combine(self, first: int, base: Tensor | None, candidates: Sequence[Tensor], out: Tensor) -> Tensor:
        self.calls.append((self.n_passes, first, len(candidates[0])))
        return weighted_sum(candidates, self.inputs.weights, out)


class Recorder:
    """Makes formulas and keeps the last, which is the one that was used."""

    def __init__(self, kind: type[Normalised]):
        self.kind, self.of = kind, dict[str, Normalised]()

    def __call__(self, inputs: TensorInputs) -> Normalised:
        self.of[inputs.name] = self.kind(inputs)
        return self.of[inputs.name]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_formula_sees_all_blocks_in_order_pass_after_pass(make_checkpoint, stream):
    made = Recorder(Normalised)
    stream(make_checkpoint("a", {"w": draw(0, 2 * BLOCK + 7)}), formula=made, block_elements=BLOCK)
    blocks = [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 7)]
    assert made.of["w"].calls == [(number, *block) for number in (0, 1, 2) for block in blocks]


def test_a_formula_of_rows_gets_whole_rows(make_checkpoint, stream):
    made = Recorder(ByRow)
    tensors = {"w": draw(0, 5, 30_000), "wide": draw(1, 2, BLOCK + 1), "scalar": draw(2)}
    stream(make_checkpoint("a", tensors), formula=made, block_elements=BLOCK)
    written = {name: [call[1:] for call in formula.calls if call[0] == 1] for name, formula in made.of.items()}
    assert written == {
        "w": [(0, 60_000), (60_000, 60_000), (120_000, 30_000)],
        "wide": [(0, BLOCK + 1), (BLOCK + 1, BLOCK + 1)],
        "scalar": [(0, 1)],
    }


def test_threads_and_block_size_change_no_byte_of_what_is_measured(make_checkpoint, stream):
    tensors = [
        {"small": draw(seed, 3), "large": draw(seed + 9, 5 * BLOCK + 11), "w": draw(seed + 5, 300, 300)}
        for seed in (1, 2)
    ]
    checkpoints = [make_checkpoint(name, each) for name, each in zip("ab", tensors, strict=True)]
    outputs = {
        stream(*checkpoints, formula=Normalised, n_threads=threads, block_elements=block * BLOCK)
        for threads, block in ((1, 1), (1, 4), (2, 1), (2, 2), (4, 2), (4, 4))
    }
    assert len(outputs) == 1


def test_what_is_measured_is_right(make_checkpoint, stream, load_all, tmp_path):
    first, second = draw(1, 70_000), draw(2, 70_000)
    checkpoints = [make_checkpoint("a", {"w": first}), make_checkpoint("b", {"w": second})]
    stream(*checkpoints, formula=Normalised, block_elements=BLOCK)
    exact = (first.double() + second.double()) / 2 / first.double().norm()
    found = load_all(max(tmp_path.glob("streamed-*")))["w"]
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-9)


def test_progress_counts_what_is_written_and_not_what_is_seen(make_checkpoint, stream):
    seen: list[tuple[int, int]] = []
    tensor = draw(0, 40 * BLOCK)
    stream(
        make_checkpoint("a", {"w": tensor}),
        formula=Normalised,
        block_elements=BLOCK,
        report=lambda *progress: seen.append(progress),
    )
    # A tensor of one thread is told of after every 32 blocks.
    assert seen == [(32 * BLOCK * 4, tensor.nbytes), (tensor.nbytes, tensor.nbytes)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_found_before_anything_is_measured(make_checkpoint, stream, value: float):
    broken = torch.ones(BLOCK + 5)
    broken[BLOCK + 2] = value
    made = Recorder(Normalised)
    checkpoints = [make_checkpoint("good", {"w": torch.ones(BLOCK + 5)}), make_checkpoint("broken", {"w": broken})]
    with pytest.raises(NonFiniteError, match=r"tensor 'w' holds NaN or infinity in broken \("):
        stream(*checkpoints, formula=made, block_elements=BLOCK)
    assert made.of["w"].calls == [(0, 0, BLOCK)]
