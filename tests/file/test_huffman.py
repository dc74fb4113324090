"""Huffman codes against the theory, and their coder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.errors import BadFile
from cortado.file.huffman import LONGEST, code_lengths, decode, encode, huffman_bits, limited_lengths


def test_code_lengths_of_dyadic_counts_are_their_logarithms() -> None:
    assert code_lengths(np.array([8, 4, 2, 1, 1])).tolist() == [1, 2, 3, 4, 4]


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(lambda counts: sum(c > 0 for c in counts) > 1))
def test_code_lengths_are_complete_and_within_a_bit_of_entropy(counts: list[int]) -> None:
    array = np.array(counts)
    lengths = code_lengths(array)
    used = array[array > 0]
    assert (2.0 ** -lengths[array > 0]).sum() == 1
    entropy = -(used / used.sum() * np.log2(used / used.sum())).sum()
    assert entropy - 1e-9 <= (lengths * array).sum() / used.sum() < entropy + 1


def test_huffman_bits_of_one_symbol_is_one_each() -> None:
    assert huffman_bits(np.full(17, 5)) == 17


def test_code_lengths_keep_their_limit_for_fibonacci_counts() -> None:
    counts = [1, 1]
    while len(counts) < 60:
        counts.append(counts[-1] + counts[-2])
    array = np.array(counts)
    assert code_lengths(array).max() > LONGEST
    lengths = limited_lengths(array)
    assert lengths.max() <= LONGEST
    assert (2.0**-lengths).sum() == 1


@given(st.lists(st.one_of(st.integers(-4, 4), st.integers(-(2**31), 2**31 - 1)), max_size=200))
@settings(deadline=None)
def test_decode_inverts_encode(listed: list[int]) -> None:
    values = np.array(listed, dtype=np.int64)
    assert decode(encode(values), len(listed)).tolist() == listed


def test_decode_inverts_encode_over_many_chunks() -> None:
    values = np.rint(np.random.default_rng(0).laplace(scale=9, size=300_000)).astype(np.int64)
    body = encode(values)
    assert (decode(body, values.size) == values).all()
    assert len(body) - huffman_bits(values) / 8 < 260  # the table of nearly 200 values


def test_decode_refuses_what_contradicts_itself() -> None:
    body = encode(np.array([1, 2, 2, 3, 3, 3, 3]))
    for damaged in (body[:-1], body + b"\1", b"\7" + body[1:], bytes([255] * 20)):
        with pytest.raises(BadFile):
            decode(damaged, 7)
