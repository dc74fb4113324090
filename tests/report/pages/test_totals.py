"""Totals against sums done another way."""

from collections.abc import Callable

import pytest

from cortado.file.accounting import LayerRow
from cortado.report.pages.totals import deep_compression_bytes, total_row, weights_and_rest
from cortado.report.report import Report

Make = Callable[..., Report]


def row(path: str, entries: int, stored: int, bits: tuple[float, float, float | None, float | None]) -> LayerRow:
    return LayerRow(path, (entries, 1), "", entries, stored, 10, entries, entries * 32, stored, *bits, 100.0, 50.0)


def test_split_leaves_no_byte_out(report_with: Make) -> None:
    report = report_with()
    parts = weights_and_rest(report)
    assert [one.path for one in parts.weights] == ["fc1.weight", "fc2.weight"]
    assert [one.path for one in parts.rest] == ["fc1.bias"]
    assert sum(one.size_bytes for one in (*parts.weights, *parts.rest)) + parts.head_bytes == report.size_bytes


def test_total_row_weighs_bits_by_stored_entries() -> None:
    total = total_row([row("a", 100, 30, (8, 6, 4, 2)), row("b", 900, 10, (4, 2, 8, 6))], "all")
    assert (total.entries, total.nonzeros, total.size_bytes, total.stored) == (1000, 40, 20, 40)
    assert (total.value_bits, total.value_bits_huffman) == (7, 5)
    assert (total.index_bits, total.index_bits_huffman) == (5, 3)
    assert total.rate == pytest.approx(200 / 32000)
    assert total.kept == pytest.approx(0.04)


def test_total_row_counts_a_plain_list_as_no_index_bits() -> None:
    total = total_row([row("a", 100, 30, (8, 6, 4, 2)), row("b", 30, 30, (8, 6, None, None))], "all")
    assert total.index_bits == 2
    assert total_row([row("b", 30, 30, (8, 6, None, None))], "all").index_bits is None


def test_total_row_is_unknown_when_one_row_is(report_with: Make) -> None:
    total = total_row(report_with().layers, "all")
    assert total.value_bits is total.coded_bits is total.rate_huffman is None
    assert total.size_bytes == 321 + 321 + 1203


def test_deep_compression_bytes_add_what_is_not_coded(report_with: Make) -> None:
    entries = 300 * 784 + 100 * 300
    assert deep_compression_bytes(report_with()) == pytest.approx(entries * 1.25 / 8 + 1200)


def test_deep_compression_bytes_are_unknown_when_a_weight_is_not_coded(report_with: Make) -> None:
    dense = LayerRow("fc3.weight", (10, 100), "dense", 1000, 1000, 4000, 1000, 32000)
    assert deep_compression_bytes(report_with(layers=(*report_with().layers, dense))) is None
