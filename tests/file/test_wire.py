"""Whole numbers in bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadFile
from cortado.file.wire import Cursor, unzigzag, varint, zigzag


@given(st.integers(0, 2**63 - 1))
def test_number_inverts_varint(number: int) -> None:
    cursor = Cursor(varint(number))
    assert cursor.number() == number
    assert cursor.rest() == b""


@given(st.integers(-(2**40), 2**40))
def test_unzigzag_inverts_zigzag(number: int) -> None:
    assert unzigzag(zigzag(number)) == number


def test_zigzag_keeps_small_numbers_small() -> None:
    assert [zigzag(number) for number in (0, -1, 1, -2)] == [0, 1, 2, 3]


@pytest.mark.parametrize("body", [b"", b"\x80", b"\xff" * 12])
def test_number_refuses_an_open_end(body: bytes) -> None:
    with pytest.raises(BadFile):
        Cursor(body).number()


def test_take_refuses_more_than_there_is() -> None:
    with pytest.raises(BadFile):
        Cursor(b"abc").take(4)
