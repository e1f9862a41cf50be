"""What goes by addresses, where the compiler's own check of bounds sees nothing."""

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import layout


@pytest.mark.skipif(
    not (numba.config.BOUNDSCHECK or numba.config.DISABLE_JIT), reason="bounds are not checked"
)
@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_does_not_exist_is_refused_where_bounds_are_checked(row):
    blocks, rows = layout.aligned_zeros((1, 8, 16), "float32"), np.zeros(16, np.int64)
    order = np.full((16, 1), row)
    with pytest.raises(IndexError, match="no such row"):
        layout.gather_rows(blocks, np.zeros((5, 8), np.float32), order[0], 0, 1, rows)
    with pytest.raises(IndexError, match="no such row"):
        layout.gather_repetitions(blocks, np.zeros((16, 5, 8), np.float32), order, 0, 1, rows)
