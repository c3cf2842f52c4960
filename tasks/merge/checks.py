"""Whether checkpoints can be merged with each other."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tasks.checkpoint import read_config
from tasks.compatibility import quantisation_problem, tensor_mismatches
from tasks.errors import CheckpointMismatchError
from tasks.records import Checkpoint
from tasks.tensors import TensorView


def check_mergeable(
    base: Checkpoint,
    others: Sequence[Checkpoint],
    views: Mapping[Path, Mapping[str, TensorView]],
    any_rows: Collection[str] = (),
) -> None:
    """Refuse checkpoints that do not belong together. Adapters are none of this: they change no name and no shape.

    Args:
        base: Decides names and shapes.
        others: All that must fit it.
        views: The tensors of each, by folder.
        any_rows: Tensors that may have another number of rows, as they are merged by token.

    Raises:
        CheckpointMismatchError: tensors do not fit the base, or are quantised; all of them are listed.
    """
    distinct = {other.folder: other for other in others if other.folder != base.folder}
    found = [quantisation_problem(read_config(each.folder), each.name) for each in (base, *distinct.values())]
    problems = [problem for problem in found if problem]
    for folder, other in distinct.items():
        problems += tensor_mismatches(views[base.folder], views[folder], base.name, other.name, any_rows)
    lines = [f"  - {problem}" for problem in problems]
    if lines:
        raise CheckpointMismatchError(
            "these checkpoints cannot be merged; merge only models fine-tuned from the same base model:\n"
            + "\n".join(lines)
        )
