"""What is merged into what, cut into the work of one thread at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.arithmetic.method import Formula, ShortPasses
from tasks.arithmetic.reductions import REDUCTION_BLOCK
from tasks.merge.sources import TensorSource, row_length
from tasks.tensors import DTYPE_BYTES, FLOAT_DTYPES, TensorView

# Small enough that a block of each input and the sum stay in a core's cache, large enough that calls cost little.
BLOCK_ELEMENTS = 256 * 1024
# How many blocks a thread writes before it tells of them. Files are open for so long, so that their number meets no
# limit, and what was written is still in the page cache when it is hashed.
BLOCKS_PER_RANGE = 32


@dataclass(frozen=True, slots=True)
class Output:
    """One of the models that are made of the same inputs."""

    folder: Path
    """Its files are there with their full size when tensors are written."""
    formula_of: Callable[[TensorView], Formula]
    """Makes the formula of a floating tensor, anew at every call."""
    candidates: tuple[int, ...] | None = None
    """Which of the job's candidates its formulas get, by index; None for all."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is merged into what."""

    base: TensorSource
    """Where integer and boolean tensors come from."""
    candidates: Sequence[TensorSource]
    outputs: Sequence[Output]
    """At least one. Several are made in one read, which formulas with passes do not allow."""
    block_elements: int = BLOCK_ELEMENTS
    """Elements of a tensor that a thread holds at a time; for formulas with passes a multiple of `REDUCTION_BLOCK`."""
    reads_base: bool = False
    """Whether formulas get the base's floating tensors."""
    blocks_per_range: int = BLOCKS_PER_RANGE
    """How many blocks of a part a thread writes before it tells of them."""
    n_threads: int | None = None
    """Threads that merge; None: as many as help where files are on this machine."""
    check_inputs: Callable[[], None] = lambda: None
    """Raises an InputError if what sources read is not what it was when they were opened. By any thread."""
    device: str | None = None
    """Where torch computes, see `tasks.merge.device`; None: this machine's processor does, on the blocks as read."""

    @property
    def sources(self) -> list[TensorSource]:
        """Whatever floating tensors are read from, in the order of the blocks."""
        return [self.base, *self.candidates] if self.reads_base else list(self.candidates)


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive elements of one output tensor, the work of one thread."""

    tensor: TensorView
    """As it will be in the output."""
    first: int
    stop: int
    block_elements: int
    formulas: tuple[Formula, ...] = ()
    """One per output. None for integers; none yet for a tensor with passes, whose formula may hold much."""
    n_passes: int = 0
    """How often all of it is read before it is read to be written."""

    @property
    def n_elements(self) -> int:
        """Length."""
        return self.stop - self.first

    @property
    def n_bytes(self) -> int:
        """Bytes in one output."""
        return self.n_elements * DTYPE_BYTES[self.tensor.dtype]


def plan_parts(job: Job, tensors: Iterable[TensorView]) -> list[Part]:
    """Cut the work into what one thread does at a time.

    File by file, so that a merge that is stopped has finished as many as it could. Ranges of a tensor can go to
    several threads. A tensor with passes is the work of one; the largest of a file come first, and files with the
    largest before others, so that threads end together.

    Args:
        job: What is merged into what; no file of it need be there yet.
        tensors: What is written, as `plan_layout` placed it; the same for all outputs.

    Raises:
        ValueError: blocks or outputs are such as a formula with passes cannot have, or a number is out of its limits.
    """
    parts: list[Part] = []
    for tensor in tensors:
        if tensor.n_elements == 0:
            continue
        floating = tensor.dtype in FLOAT_DTYPES
        formulas = tuple(output.formula_of(tensor) for output in job.outputs if floating)
        n_passes = max(map(_whole_passes, formulas), default=0)
        block_elements = _block_elements(job, tensor, formulas)
        if n_passes:
            _check_passes(job, tensor, formulas[0])
            # Made again when its turn comes: what it notes must not be held for all tensors at once.
            parts.append(Part(tensor, 0, tensor.n_elements, block_elements, (), n_passes))
        else:
            parts += _split(tensor, block_elements, job.blocks_per_range, formulas)
    return _by_file(parts)


def count_bytes_read(job: Job, parts: Iterable[Part]) -> int:
    """Tensor bytes that are read to be merged, also of adapters, once for each whole pass; integers only as copied."""
    total = 0
    for part in parts:
        read = job.sources if part.tensor.dtype in FLOAT_DTYPES else [job.base]
        n_bytes = sum(source.stored_bytes(part.tensor.name) for source in read) * (part.n_passes + 1)
        total += n_bytes * part.n_elements // part.tensor.n_elements
    return total


def _by_file(parts: Sequence[Part]) -> list[Part]:
    longest: dict[Path, int] = {}
    for part in parts:
        longest[part.tensor.file] = max(longest.get(part.tensor.file, 0), _indivisible_work(part))
    rank = {file: place for place, file in enumerate(sorted(longest, key=lambda file: -longest[file]))}
    return sorted(parts, key=lambda part: (rank[part.tensor.file], -_indivisible_work(part)))


def _whole_passes(formula: Formula) -> int:
    """Passes that see all of a tensor: of a formula with short ones the first, and mostly no other."""
    return min(formula.n_passes, 1) if isinstance(formula, ShortPasses) else formula.n_passes


def _indivisible_work(part: Part) -> int:
    """Elements that one thread must read one after the other; none to speak of where a tensor is cut into ranges."""
    return part.n_elements * (part.n_passes + 1) if part.n_passes else 0


def _block_elements(job: Job, tensor: TensorView, formulas: Sequence[Formula]) -> int:
    """Elements of a block of this tensor: as the job says, or the rows that fit into that, but one at least."""
    if not any(formula.whole_rows for formula in formulas):
        return job.block_elements
    length = row_length(tensor.shape)
    return max(1, job.block_elements // length) * length


def _check_passes(job: Job, tensor: TensorView, formula: Formula) -> None:
    if len(job.outputs) > 1:
        raise ValueError(
            f"tensor {tensor.name!r}: the formula must see all of the tensor before it can write, so that several "
            "outputs in one read would need all their notes at once; merge one after the other"
        )
    if job.block_elements % REDUCTION_BLOCK and not formula.whole_rows:
        raise ValueError(
            f"block_elements: a formula with passes needs a multiple of {REDUCTION_BLOCK}; found {job.block_elements}"
        )


def _split(
    tensor: TensorView, block_elements: int, blocks_per_range: int, formulas: tuple[Formula, ...]
) -> Iterator[Part]:
    step = block_elements * blocks_per_range
    for first in range(0, tensor.n_elements, step):
        yield Part(tensor, first, min(first + step, tensor.n_elements), block_elements, formulas)
