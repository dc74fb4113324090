"""Sizes, times and shares as people write them."""

import pytest

from cortado import quantities as units
from cortado.errors import BadValue


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1.5 MB", "size", 1.5e6), ("100KB", "size", 1e5), ("2 KiB", "size", 2048), ("7", "size", 7), ("1e3 b", "size", 1000),
        ("3 ms", "time", 3), ("2 s", "time", 2000), ("1.5 min", "time", 9e4), ("5 us", "time", 0.005), ("1 h", "time", 3.6e6),
        ("0.5 %", "share", 0.005), ("-0.5%", "share", -0.005), ("0.25", "share", 0.25), ("430 K", "count", 430_000), (12, "size", 12),
    ],
)  # fmt: skip
def test_read_gives_bytes_milliseconds_and_shares(text, kind, value):
    assert units.read_quantity(text, kind) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "size"),
        ("MB", "size"),
        ("3 ms", "size"),
        ("3 MB", "time"),
        ("5 MB", "share"),
        ("1,5 MB", "size"),
        ("3", "time"),
    ],
)
def test_read_refuses_what_is_no_quantity(text, kind):
    with pytest.raises(BadValue, match="units: "):
        units.read_quantity(text, kind)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1762, 44_119, 1_720_000, 3_210_000_000])
def test_size_text_is_read_back_to_three_digits(size):
    assert units.read_quantity(units.size_text(size), "size") == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("ms", "text"), [(0.005, "5 us"), (3, "3 ms"), (1500, "1.5 s"), (61_000, "1 min 1 s"), (3.66e6, "1 h 1 min")]
)
def test_time_text_reads_well(ms, text):
    assert units.time_text(ms) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999"), (430_500, "430 K"), (2_300_000, "2.3 M")])
def test_count_text_has_three_digits(count, text):
    assert units.count_text(count) == text
