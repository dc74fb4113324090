"""The mixed coder's own choices."""

import numpy as np
import pytest
import torch

from cortado.errors import BadFile
from cortado.file.mix import decode, decode_states, encode, encode_states, layout, likely_stride
from cortado.parts.forms.states import LAWS, Course, levels_of


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


def on_a_trellis(shape: tuple[int, ...]) -> np.ndarray:
    """Codes whose levels are close to normal values: where grid 1 has 1, grid 0 has 2."""
    generator, law, state = np.random.default_rng(3), LAWS[8], 0
    found = []
    for value in generator.normal(scale=2.0, size=int(np.prod(shape))):
        grid, size = state & 1, abs(value)
        code = round((size + 1) / 2) if grid and size > 0.5 else round(size / 2) if not grid else 0
        found.append(int(np.copysign(code, value)))
        state = law.after(state, code & 1)
    return np.array(found, dtype=np.int32).reshape(shape)


@pytest.mark.parametrize("masked", [False, True])
def test_codes_are_shorter_with_their_grids_and_come_back(masked: bool) -> None:
    values = on_a_trellis((30, 20, 3, 3))
    where = np.random.default_rng(0).random(values.shape) < 0.9 if masked else None
    course = Course(8, values.size)
    body = encode_states(values, where, course)
    assert (decode_states(body, values.shape, where) == (values if where is None else np.where(where, values, 0))).all()
    assert masked or len(body) < 0.985 * len(encode(values, None))


def test_codes_that_are_all_positive_keep_their_parities() -> None:
    values = 1 + np.abs(on_a_trellis((10, 20)))
    assert (decode_states(encode_states(values, None, Course(4, 20)), values.shape, None) == values).all()
    assert int(levels_of(torch.from_numpy(values), LAWS[4], 20).min()) >= 1


@pytest.mark.parametrize("head", [bytes([5, 1]), bytes([8, 0]), bytes([8, 255, 255, 255, 255, 127])])
def test_machines_that_do_not_exist_are_refused(head: bytes) -> None:
    with pytest.raises(BadFile, match="states starts again every"):
        decode_states(head + bytes([1, 0, 9]), (4, 4), None)
