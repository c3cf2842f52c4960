"""No loss may be NaN or infinity: softmax would spread it over the weights of all models."""

import math
from collections.abc import Sequence

from tasks.errors import NonFiniteError


def check_finite(values: Sequence[float], unit: str = "row") -> None:
    """Refuse NaN and infinity.

    Args:
        values: Losses or likelihoods, in their order.
        unit: What one value belongs to: a row, or a batch of rows.

    Raises:
        NonFiniteError: with the rows, counted from 1.
    """
    if bad := [number for number, value in enumerate(values, start=1) if not math.isfinite(value)]:
        listed = ", ".join(map(str, bad[:10])) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise NonFiniteError(
            f"the loss of {unit} {listed} is not finite: the model's tensors hold NaN or infinity, or its numbers are "
            "too large for this dtype (try score.dtype: float32)"
        )
