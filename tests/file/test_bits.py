"""Bit packing against arithmetic."""

import numpy as np
import pytest

from cortado.errors import BadFile
from cortado.file.bits import decode, encode, pack, unpack


def test_pack_writes_the_most_significant_bit_first() -> None:
    assert pack(np.array([5, 2]), 3) == bytes([0b10101000])


@pytest.mark.parametrize("width", [1, 5, 13, 32])
def test_unpack_inverts_pack_over_many_chunks(width: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**width, 70_000)
    body = pack(values, width)
    assert len(body) == (70_000 * width + 7) // 8
    assert (unpack(body, 70_000, width) == values).all()


def test_encode_takes_the_width_of_the_range() -> None:
    assert len(encode(np.array([1000, 1003] * 8))) == 2 + 1 + 4
    assert encode(np.zeros(50, dtype=int)) == b""


def test_decode_refuses_a_wrong_length_and_values_beyond_32_bits() -> None:
    body = encode(np.arange(9))
    with pytest.raises(BadFile, match="bytes"):
        decode(body[:-1], 9)
    with pytest.raises(BadFile, match="32 bits"):
        decode(b"\xfe\xff\xff\xff\x0f\x20" + b"\xff" * 8, 2)  # from 2**31 - 1, differences of 32 bits
