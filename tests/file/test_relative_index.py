"""Sparse layouts against worked examples and their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadValue
from cortado.file.huffman import huffman_bits
from cortado.file.relative_index import compressed_rows, relative_index

SIX = np.array(
    [[0, 0, 6, 4, 0, 0], [0, 0, 0, 3, 5, 7], [0, 0, 0, 0, 8, 0], [8, 0, 4, 3, 0, 0], [0] * 6, [5, 9, 0, 0, 0, 0]]
)


def test_compressed_rows_of_the_worked_example() -> None:
    rows = compressed_rows(SIX)
    assert rows.a.tolist() == [6, 4, 3, 5, 7, 8, 8, 4, 3, 5, 9]
    assert rows.ja.tolist() == [2, 3, 3, 4, 5, 4, 0, 2, 3, 0, 1]
    assert rows.ia.tolist() == [0, 2, 5, 6, 9, 9, 11]
    assert (rows.dense() == SIX).all()


def test_compressed_rows_count_two_a_nonzero_and_one_a_row_and_one() -> None:
    assert compressed_rows(SIX).size_bits(1, 1) == 2 * 11 + 6 + 1
    assert compressed_rows(SIX).size_bits(32, 8) == 11 * 32 + 18 * 8
    rows = compressed_rows(SIX)
    assert rows.huffman_bits(8) == huffman_bits(rows.a) + huffman_bits(rows.ja) + 7 * 8


def test_compressed_rows_refuse_kernels() -> None:
    with pytest.raises(BadValue, match="matrix"):
        compressed_rows(np.zeros((2, 3, 4)))


def test_relative_index_puts_a_filler_where_the_paper_does() -> None:
    values = np.zeros(16, dtype=int)  # figure 2 of the paper: survivors at 1, 4 and 15, gaps of 3 bits, a filler at 12
    values[[1, 4, 15]] = [34, 9, 17]
    index = relative_index(values, 3)
    assert index.gaps.tolist() == [1, 2, 7, 2]
    assert index.values.tolist() == [34, 9, 0, 17]
    assert index.fillers == 1
    assert index.size_bits(8) == 4 * (3 + 8)


@given(st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -7]), max_size=200), st.integers(1, 8))
def test_relative_index_round_trips(listed: list[int], gap_bits: int) -> None:
    index = relative_index(np.array(listed, dtype=np.int64), gap_bits)
    assert index.dense().tolist() == listed
    assert len(index.gaps) == np.count_nonzero(listed) + index.fillers
    assert index.gaps.max(initial=0) < 1 << gap_bits


def test_relative_index_refuses_other_widths() -> None:
    with pytest.raises(BadValue, match="gap_bits"):
        relative_index(np.ones(3), 0)


def test_huffman_bits_of_a_relative_index_are_those_of_gaps_and_values() -> None:
    index = relative_index(np.random.default_rng(0).integers(0, 2, 500), 4)
    assert index.huffman_bits() == huffman_bits(index.gaps) + huffman_bits(index.values)
