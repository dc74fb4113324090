"""The mixed coder's own choices."""

import numpy as np
import pytest

from cortado.errors import BadFile
from cortado.file.mix import decode, encode, layout, likely_stride


def test_layout_reads_one_axis_as_a_row_and_the_rest_as_taps() -> None:
    assert layout((10,)) == (1, 10, 1, 1)
    assert layout((3, 4)) == (3, 4, 1, 1)
    assert layout((3, 4, 5, 6)) == (3, 4, 30, 6)


def test_likely_stride_finds_the_width_of_an_image() -> None:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    chance = np.exp(-((y - 14) ** 2 + (x - 14) ** 2) / 40).ravel()
    assert likely_stride((generator.random((50, 784)) < chance).astype(np.int32)) == 28
    assert likely_stride(np.ones((5, 3), dtype=np.int32)) == 0


def test_zeros_cost_almost_nothing_beside_a_few_values() -> None:
    values = np.zeros((1000, 1000), dtype=np.int32)
    values[:3, :3] = 1
    assert len(encode(values, None)) < 40


def test_values_far_from_zero_cost_their_spread_alone() -> None:
    values = np.random.default_rng(0).integers(0, 4, (50, 40)).astype(np.int32)
    assert len(encode(values + 1_000_000, None)) <= len(encode(values, None)) + 10


@pytest.mark.parametrize("body", [b"\x01", bytes([63, 0, 1]), bytes([0, 0, 5]), bytes([1, 128]), bytes([129, 0, 0, 0])])
def test_decode_refuses_impossible_heads(body: bytes) -> None:
    with pytest.raises(BadFile):
        decode(body, (4, 4), None)
