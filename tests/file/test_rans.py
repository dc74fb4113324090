"""The fast coder's tables and its distance from entropy."""

import numpy as np
import pytest

from cortado.errors import BadFile
from cortado.file.rans import (
    GRAINS,
    TOTAL,
    decode,
    encode,
    frequencies,
    kernel_tables,
    lookup_table,
    read_table,
    table_bytes,
)
from cortado.file.wire import Cursor


def test_frequencies_sum_to_the_total_and_keep_what_occurs() -> None:
    counts = np.array([1, 0, 10**9, 5] + [0] * 12)
    for grain in GRAINS:
        widths = frequencies(counts, grain)
        assert widths.sum() == TOTAL
        assert not (widths % grain).any()
        assert ((widths > 0) == (counts > 0)).all()
        assert not frequencies(np.zeros(16, dtype=int), grain).any()


def test_read_table_inverts_table_bytes() -> None:
    for counts in ([0] * 16, [0, 3] + [0] * 14, list(range(16))):
        for grain in GRAINS:
            widths = frequencies(np.array(counts), grain)
            assert (read_table(Cursor(table_bytes(widths, grain)), grain) == widths).all()


def test_read_table_refuses_frequencies_beyond_the_total() -> None:
    with pytest.raises(BadFile):
        read_table(Cursor(bytes([7, 0, 255, 255, 1, 255, 255, 1])), 1)


def test_kernel_tables_begin_where_the_widths_before_end() -> None:
    table = kernel_tables(np.array([[TOTAL // 2, 0, TOTAL // 2] + [0] * 13]))
    assert table[0, :4].tolist() == [0, TOTAL // 2, TOTAL // 2, TOTAL]


def test_lookup_groups_by_thresholds() -> None:
    groups = lookup_table([3, 5], 2)
    assert groups[:7].tolist() == [0, 0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize(("scale", "above"), [(0.3, 1.01), (2.0, 1.01), (15.0, 1.01)])
def test_size_stays_near_the_entropy_of_independent_values(scale: float, above: float) -> None:
    values = np.rint(np.random.default_rng(0).laplace(scale=scale, size=200_000)).astype(np.int32)
    _, counts = np.unique(values, return_counts=True)
    entropy = -(counts * np.log2(counts / values.size)).sum() / 8
    assert len(encode(values, 500)) < above * entropy + 64


def test_size_profits_from_rows_and_columns_of_different_scale() -> None:
    generator = np.random.default_rng(0)
    scale = np.exp(generator.normal(size=(1, 400))) * np.ones((500, 1))
    values = np.rint(generator.laplace(size=(500, 400)) * scale).astype(np.int32)
    shuffled = generator.permutation(values.ravel())
    assert len(encode(values.ravel(), 400)) < 0.95 * len(encode(shuffled, 400))


def test_decode_refuses_a_stream_that_ends_elsewhere() -> None:
    body = encode(np.arange(-500, 500, dtype=np.int32), 10)
    for damaged in (body[:-2], body + b"\0\0", body[:-1] + bytes([body[-1] ^ 1])):
        with pytest.raises(BadFile):
            decode(damaged, 1000, 10)
