"""Linear merges in one pass over the inputs, in C (`kernels.c`): read, combine, round, look for NaN.

torch needs a pass for each operation, and slow ones where dtypes differ; a linear merge of bfloat16 files is bound by
them. Where `tasks.arithmetic.library` is not there, or does not know the dtypes, torch has to compute.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.arithmetic.block import Numbers
from tasks.arithmetic.library import floats, operands


def sum_rounded(blocks: Sequence[Numbers], coefficients: Sequence[float], out: Numbers) -> bool | None:
    """`tasks.arithmetic.linear.weighted_sum`, rounded once to the dtype of `out`.

    Args:
        blocks: (n,) each, at least one.
        coefficients: One per block.
        out: (n,), where the sum is put.

    Returns:
        Whether all of it is finite; None, and `out` as it was, where torch has to compute.
    """
    # torch's functions say what is wrong with the numbers of arguments; C would read past their end.
    found = operands([*blocks, out]) if blocks and len(blocks) == len(coefficients) else None
    if found is None:
        return None
    library, addresses, codes = found
    return bool(
        library.weighted_sum(addresses, codes, floats(coefficients), len(blocks), out.numel(), addresses[-1], codes[-1])
    )


def add_task_vectors_rounded(
    general: Numbers, base: Numbers, skills: Sequence[Numbers], omegas: Sequence[float], scale: float, out: Numbers
) -> bool | None:
    """`tasks.arithmetic.task_vectors.add_task_vectors`, rounded once to the dtype of `out`; as `sum_rounded`."""
    blocks = [general, base, *skills]
    found = operands([*blocks, out]) if len(skills) == len(omegas) else None
    if found is None:
        return None
    library, addresses, codes = found
    return bool(
        library.add_task_vectors(
            addresses, codes, floats(omegas), scale, len(skills), out.numel(), addresses[-1], codes[-1]
        )
    )
