"""Relative index against the worked example and its definition."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadValue
from cortado.file.accounting import gaps_of
from cortado.file.counts import counted, runs_of_zeros
from cortado.file.huffman import huffman_bits
from cortado.file.relative_index import relative_index
from cortado.file.symbols import Symbols


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


@given(st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -7]), min_size=1, max_size=200), st.integers(1, 8))
def test_gaps_that_accounting_counts_are_those_of_the_index(listed: list[int], gap_bits: int) -> None:
    values = np.array(listed)
    symbols = Symbols(*counted([values]), *counted(runs_of_zeros(values)), 0)
    index = relative_index(values, gap_bits)
    assert Counter(index.gaps.tolist()) == dict(zip(*map(list, gaps_of(symbols, gap_bits)), strict=True))
    assert (symbols.fillers(gap_bits), symbols.kept) == (index.fillers, np.count_nonzero(values))


def test_relative_index_refuses_other_widths() -> None:
    with pytest.raises(BadValue, match="gap_bits"):
        relative_index(np.ones(3), 0)


def test_huffman_bits_of_a_relative_index_are_those_of_gaps_and_values() -> None:
    index = relative_index(np.random.default_rng(0).integers(0, 2, 500), 4)
    assert index.huffman_bits() == huffman_bits(index.gaps) + huffman_bits(index.values)
