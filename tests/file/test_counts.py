"""Counts in blocks are those of the whole list."""

import numpy as np
import pytest

from cortado.file import bits, counts, huffman


@pytest.fixture(autouse=True, params=[3, 1 << 20])
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(counts, "BLOCK", request.param)


def lists():
    random = np.random.default_rng(0)
    yield random.integers(-5, 5, 200).astype(np.int32)
    yield (random.random(300) < 0.05).astype(np.int32) * 7
    yield random.integers(-(2**31), 2**31 - 1, 50).astype(np.int32)
    yield np.full(9, -3, dtype=np.int32)
    yield np.zeros(7, dtype=np.int32)


@pytest.mark.parametrize("values", [*lists()])
def test_values_are_counted_as_numpy_counts_them(values):
    found, often = counts.counted(counts.blocks(values))
    wanted = np.unique(values, return_counts=True)
    assert np.array_equal(found, wanted[0]) and np.array_equal(often, wanted[1])


@pytest.mark.parametrize("values", [*lists()])
def test_runs_of_zeros_are_those_before_each_nonzero_entry(values):
    wanted, run = [], 0
    for value in values.tolist():
        run = run + 1 if value == 0 else wanted.append(run) or 0
    assert [run for part in counts.runs_of_zeros(values) for run in part.tolist()] == wanted


@pytest.mark.parametrize("coder", [bits, huffman], ids=["bits", "huffman"])
@pytest.mark.parametrize("values", [*lists(), np.zeros(0, dtype=np.int32)])
def test_size_is_the_length_of_what_is_written(values, coder):
    assert coder.size(values) == len(coder.encode(values))
