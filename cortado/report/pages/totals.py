"""Totals: sums over layers, and the rest of the file."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortado.file.accounting import LayerRow
from cortado.report.record import Record


@dataclass(frozen=True)
class Split:
    """The rows of weights (two axes or more), those of the rest (biases, norms, buffers), and the bytes of no row."""

    weights: tuple[LayerRow, ...]
    rest: tuple[LayerRow, ...]
    head_bytes: int


def weights_and_rest(report: Record) -> Split:
    """Return the layers of a report, split into weights and the rest."""
    weights = tuple(row for row in report.layers if len(row.shape) >= 2)
    rest = tuple(row for row in report.layers if len(row.shape) < 2)
    return Split(weights, rest, report.size_bytes - sum(row.size_bytes for row in report.layers))


def total_row(rows: Sequence[LayerRow], path: str) -> LayerRow:
    """Return the sum of all rows, with means over the stored entries; unknown if any row is unknown."""
    coded = all(row.coded_bits is not None for row in rows) and bool(rows)

    def sum_of(name: str) -> float | None:
        return sum(getattr(row, name) for row in rows) if coded else None

    def mean_of(name: str) -> float | None:
        """Return the mean over stored entries; a layer stored as a plain list has no index bits."""
        stored = sum(row.stored or 0 for row in rows)
        if not coded or not stored or all(getattr(row, name) is None for row in rows):
            return None
        return sum((getattr(row, name) or 0.0) * (row.stored or 0) for row in rows) / stored

    return LayerRow(
        path=path,
        shape=(),
        form="",
        entries=sum(row.entries for row in rows),
        nonzeros=sum(row.nonzeros for row in rows),
        size_bytes=sum(row.size_bytes for row in rows),
        original_entries=sum(row.original_entries for row in rows),
        original_bits=sum(row.original_bits for row in rows),
        stored=sum(row.stored or 0 for row in rows) if coded else None,
        value_bits=mean_of("value_bits"),
        value_bits_huffman=mean_of("value_bits_huffman"),
        index_bits=mean_of("index_bits"),
        index_bits_huffman=mean_of("index_bits_huffman"),
        coded_bits=sum_of("coded_bits"),
        coded_bits_huffman=sum_of("coded_bits_huffman"),
    )


def deep_compression_bytes(report: Record) -> float | None:
    """Return the network's size by Deep Compression's arithmetic, the rest uncompressed; None if unknown."""
    parts = weights_and_rest(report)
    total = total_row(parts.weights, "")
    if total.coded_bits_huffman is None:
        return None
    return (total.coded_bits_huffman + sum(row.original_bits for row in parts.rest)) / 8
