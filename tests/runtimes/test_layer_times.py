"""Times of layers by their shape: kept, taken from straight lines in between, and really those of layers."""

import pytest
import torch
from torch import nn

from cortado.errors import BadFile, BadValue
from cortado.runtimes.layer_times import LayerShape, LayerTimes, call_shape
from cortado.runtimes.runtime import runtime_by_name

CONV = LayerShape(16, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))


class Planted(LayerTimes):
    """Times that are known, and how often they were asked for."""

    def measured(self, shape):
        self.asked = [*getattr(self, "asked", []), shape.text()]
        return 1e-3 * shape.inputs * shape.outputs / shape.groups


def planted(folder, **facts):
    return Planted(runtime_by_name("onnxruntime"), folder=folder, **facts)


def test_a_shape_is_what_the_time_depends_on():
    for padding in (1, "same"):
        assert call_shape(nn.Conv2d(16, 32, 3, padding=padding), (2, 16, 8, 8), 2) == (CONV, 1.0)
    assert call_shape(nn.Conv1d(3, 3, 2, padding="same"), (2, 3, 8), 2) is None, "more zeros at one end"
    assert CONV.text() == "16>32 k3x3 s1x1 p1x1 d1x1 g1 @8x8"
    assert call_shape(nn.Linear(5, 3), (2, 7, 5), 2) == (LayerShape(5, 3, (7,)), 1.0)
    assert call_shape(nn.ReLU(), (2, 5), 2) is None


def test_what_runs_for_parts_of_a_sample_counts_as_often():
    """Tokens put in one row, and windows of a picture."""
    assert call_shape(nn.Linear(5, 3), (14, 5), 2) == (LayerShape(5, 3, (7,)), 1.0)
    assert call_shape(nn.Linear(5, 3), (2, 5), 2) == (LayerShape(5, 3), 1.0)
    assert call_shape(nn.Conv2d(16, 32, 3, padding=1), (8, 16, 8, 8), 2) == (CONV, 4.0)


def test_layers_made_from_a_shape_are_what_it_says():
    for shape in (CONV, LayerShape(5, 3, (7,)), LayerShape(8, 8, (6,), (3,), (2,), (0,), (1,), 8)):
        layer, example = shape.network()[0], shape.example()
        assert call_shape(layer, example.shape, 2) == (shape, 1.0)
        assert len(layer(example)) == 2


def test_a_channel_of_its_own_group_stays_one():
    depthwise = LayerShape(8, 16, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 8)
    half = depthwise.of(4, 8)
    assert (half.inputs, half.outputs, half.groups) == (4, 8, 4)
    assert CONV.of(0.2, 7.6) == LayerShape(1, 8, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))


def test_what_was_measured_is_kept_for_the_next_one(tmp_path):
    first = planted(tmp_path)
    assert first.ms(CONV) == first.ms(CONV) == pytest.approx(0.512) and len(first.asked) == 1
    again = planted(tmp_path)
    assert again.ms(CONV) == pytest.approx(0.512) and not hasattr(again, "asked")
    other = planted(tmp_path, threads=2)
    assert other.path != again.path and not other.known
    for damaged in ("[1, 2", '{"a": NaN}', '{"a": "b"}'):
        again.path.write_text(damaged)
        with pytest.raises(BadFile, match="Delete it"):
            planted(tmp_path)


def test_two_processes_add_to_one_table(tmp_path):
    """What the other one has written since counts, and is not lost."""
    first, second = planted(tmp_path), planted(tmp_path)
    first.ms(CONV)
    second.ms(LayerShape(4, 4))
    assert set(planted(tmp_path).known) == {CONV.text(), LayerShape(4, 4).text()}


def test_slow_table_stops_and_resumes_next_time(tmp_path):
    times = planted(tmp_path, patience=0.0)
    with pytest.raises(BadValue, match="try again to continue"):
        times.ms(CONV)
    planted(tmp_path).ms(CONV)
    assert planted(tmp_path, patience=0.0).ms(CONV) == pytest.approx(0.512)


def test_random_numbers_are_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    CONV.network()
    assert torch.equal(torch.get_rng_state(), before)


def test_between_shares_times_lie_on_straight_lines(tmp_path):
    """A product of both counts is met exactly; only the corners around a place are measured."""
    times = planted(tmp_path)
    assert times.between(CONV, 16, 32) == pytest.approx(0.512) and len(times.asked) == 1
    assert times.between(CONV, 10, 20) == pytest.approx(0.2) and len(times.asked) == 4
    assert times.between(CONV, 2, 3) == pytest.approx(0.006, rel=0.01)
    depthwise = LayerShape(8, 8, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 8)
    assert times.between(depthwise, 3, 3) == pytest.approx(0.003)


def test_wide_layers_take_longer_and_times_are_of_one_sample(tmp_path):
    times = LayerTimes(runtime_by_name("onnxruntime"), folder=tmp_path)
    narrow, wide = LayerShape(64, 64, (24,)), LayerShape(768, 768, (24,))
    assert 0 <= times.ms(narrow) < times.ms(wide) < 100
