"""The table of kernels: a row for all layers of one kernel and reason."""

from dataclasses import replace

from cortado.report.pages.kernels import kernel_name, kernel_rows, kernel_table, kernel_table_text
from cortado.report.record import Exported, Placement

FILE = Exported("openvino", "2026.4", 1_000, 97.5, 97.6, 3.2e-7, 0.9987, 9876)
ROWS = (
    Placement("conv1", "float32", 32, 0.25),
    Placement("a", "binary", 1, 0.25),
    Placement("b", "binary", 1, 0.25),
    Placement("", "float32", 32, 0.25, "int8: its input is not quantized"),
)


def test_layers_of_a_kind_share_a_row():
    assert kernel_rows(ROWS) == [
        ("conv1", "float32", "25.0 %", ""),
        ("a and 1 more", "binary, 1 bit", "50.0 %", ""),
        ("(network)", "float32", "25.0 %", "int8: its input is not quantized"),
    ]
    text = kernel_table_text(replace(FILE, placements=ROWS)).splitlines()
    assert text[0].startswith("layers in openvino") and len(text) == 5
    assert "a and 1 more" in str(kernel_table(replace(FILE, placements=ROWS)))


def test_a_file_of_floats_alone_has_no_table():
    floats = replace(FILE, placements=ROWS[:1])
    assert kernel_table_text(floats) == "" and kernel_table(floats) is None


def test_bits_stand_where_the_name_does_not_say_them():
    assert [kernel_name("packed", 4), kernel_name("binary", 1), kernel_name("int8", 8)] == [
        "packed, 4 bits", "binary, 1 bit", "int8",
    ]  # fmt: skip
