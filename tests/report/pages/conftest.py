"""A report made by hand, with names that try to break out of the page."""

from collections.abc import Callable
from typing import Any

import pytest

from cortado.file.accounting import Histogram, LayerRow
from cortado.report.report import Compared, Line, Report, Stage

NAUGHTY = "Net<script>alert(1)</script>&\"'"


def coded(path: str, shape: tuple[int, int], **fields: Any) -> LayerRow:
    """A pruned and shared weight."""
    entries = shape[0] * shape[1]
    known = {
        "nonzeros": entries // 10,
        "size_bytes": 321,
        "stored": entries // 8,
        "value_bits": 5.0,
        "value_bits_huffman": 4.125,
        "index_bits": 4.0,
        "index_bits_huffman": 3.375,
        "coded_bits": entries * 1.5,
        "coded_bits_huffman": entries * 1.25,
    }
    return LayerRow(
        path,
        shape,
        "masked(codebook)",
        entries,
        original_entries=entries,
        original_bits=entries * 32,
        **(known | fields),
    )


def make_report(**changes: Any) -> Report:
    """Two stages, three weights, one of them not coded."""
    fields: dict[str, Any] = {
        "task": "mnist",
        "network": NAUGHTY,
        "metric_name": "accuracy",
        "metric_unit": "%",
        "higher_is_better": True,
        "original_bytes": 1_066_440,
        "original_validation": 98.37,
        "stages": (
            Stage("prune/weights", {"keep": 0.123, "by": "magnitude"}, 97.61, 181_234, 0.0923, 3.5),
            Stage("share/kmeans", {"bits": 5}, 98.02, 27_321, 0.0923, 61.0),
        ),
        "lines": (
            Line("size of the file", "B", 1_066_440, 27_321, "size <= 50 KB", True),
            Line("accuracy", "%", 98.36, 98.24, "score >= -0.5 %", True),
            Line("latency", "ms", 0.5, None),
        ),
        "test": Compared(98.36, 98.24, -0.12, -0.31, 0.07, 9876),
        "layers": (
            coded("fc1.weight", (300, 784)),
            coded("fc2.weight", (100, 300)),
            LayerRow("fc1.bias", (300,), "dense", 300, 299, 1203, 300, 9600),
        ),
        "pictures": (
            Histogram("fc1.weight: codes", (-0.5, 0.5, 1.5, 2.5), (77, 1234, 3)),
            Histogram("fc1.weight: gaps", (0.5, 3.5, 6.5), (88, 0), "gaps"),
        ),
        "warnings": ("stage 1: <b>few</b> weights are left",),
        "recipe": {"name": "by hand", "stages": [{"prune/weights": {"keep": 0.123}}]},
        "seed": 41,
        "environment": {"python": "3.11.7", "processor": "unknown"},
    }
    return Report(**(fields | changes))


@pytest.fixture
def report_with() -> Callable[..., Report]:
    """Makes the report, with some of its fields changed."""
    return make_report


@pytest.fixture
def limits_with() -> Callable[..., tuple[Line, ...]]:
    """Lines with the given answers to "met?", each with a limit."""
    return lambda *met: tuple(Line(f"thing {at}", "B", 1000, 500, "size <= 1 KB", one) for at, one in enumerate(met))
