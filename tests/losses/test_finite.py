import math

import pytest

from tasks.errors import NonFiniteError
from tasks.losses.finite import check_finite


def test_the_rows_that_are_not_finite_are_listed_up_to_ten():
    check_finite([0.0, -1.0])
    with pytest.raises(NonFiniteError, match="row 2, 3 is"):
        check_finite([0.0, math.nan, math.inf])
    with pytest.raises(NonFiniteError, match="9, 10 and 2 more is"):
        check_finite([math.nan] * 12)


def test_batches_are_called_batches():
    with pytest.raises(NonFiniteError, match="the loss of batch 1 is not finite"):
        check_finite([math.nan], "batch")
