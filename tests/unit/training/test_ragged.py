"""Ragged arrays: rows, their lengths, and the indices of their values."""

import numpy as np
import pytest

from ubert_training.ragged import RaggedArray, flat_indices

ROWS = RaggedArray(values=np.arange(7), starts=np.array([0, 3, 3, 7]))


def test_rows_are_slices_of_the_values() -> None:
    assert len(ROWS) == 3
    assert [ROWS[row].tolist() for row in range(3)] == [[0, 1, 2], [], [3, 4, 5, 6]]
    assert ROWS.lengths.tolist() == [3, 0, 4]


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_the_array_is_refused(row: int) -> None:
    with pytest.raises(IndexError):
        ROWS[row]


def test_flat_indices_are_those_of_the_rows_in_order() -> None:
    starts, lengths = np.array([0, 3, 3, 7]), np.array([3, 0, 4, 2])
    assert flat_indices(np.array([2, 1, 0]), starts, lengths).tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert flat_indices(np.zeros(0, dtype=np.int64), starts, lengths).tolist() == []
