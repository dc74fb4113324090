"""The one printer of tables: columns as wide as their widest cell, whatever stands in them."""

import pytest

from cortado.table import aligned


def test_numbers_end_at_the_right_under_a_rule() -> None:
    assert aligned([("name", "bytes"), ("a", "5"), ("longer", "1,234")]) == (
        "name    bytes\n──────  ─────\na           5\nlonger  1,234"
    )


def test_the_last_sign_holds_for_the_columns_that_follow() -> None:
    made = aligned([("aa", "bb", "cc"), ("1", "2", "3")], "<>").splitlines()
    assert made[2] == "1    2   3"
    assert aligned([("aa", "bb", "cc"), ("1", "2", "3")], ">><").splitlines()[2] == " 1   2  3"


def test_rules_stand_where_they_are_asked_for() -> None:
    assert aligned([("a",), ("b",), ("sum",)], rules=(1, -1)).splitlines() == ["a", "───", "b", "───", "sum"]
    assert aligned([("a", "b")], rules=()) == "a  b"


@pytest.mark.parametrize("cell", ["", "x", "123.45 (100.00 to 150.00)", "a name of many words"])
def test_a_wide_cell_moves_its_whole_column(cell: str) -> None:
    lines = aligned(
        [("first", "loss", "mix"), ("1 KB", cell, "8 bits"), ("22 KB", "0.1", "4 bits")], ">><"
    ).splitlines()
    assert (
        len({line.index(word) for line, word in zip([lines[0], *lines[2:]], ("mix", "8 bits", "4 bits"), strict=True)})
        == 1
    )


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        aligned([("a", "b"), ("c",)])
