"""Remembered: what was measured comes back for the same network and data, and for no other."""

import pytest

from cortado.errors import BadFile
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, size_accuracy_curve
from cortado.planner.search.cache import Memory, mark_of
from cortado.planner.search.shapes import Shape, Shapes
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def never():
    raise AssertionError("it was measured again")


def test_forecast_comes_back_as_it_was(tmp_path):
    network, task = NET.make(), NET.task()
    candidate_recipes = ("quantize/weights bits=8", "quantize/weights bits=3")
    memory = Memory(tmp_path / "run", mark_of(network, task))
    found = memory.made(
        "forecast", SizeAccuracyCurve, lambda: size_accuracy_curve(network, network, task, candidate_recipes)
    )
    again = memory.made("forecast", SizeAccuracyCurve, never)
    assert again == found and again.measured and again.constant == found.constant
    least, most = found.sizes
    assert again.plan((least * most) ** 0.5) == found.plan((least * most) ** 0.5)


def test_another_network_or_data_is_measured_again(tmp_path):
    network, task = NET.make(), NET.task()
    other = NET.make()
    next(other.parameters()).data.add_(1.0)
    marks = {mark_of(network, task), mark_of(other, task), mark_of(network, task, "openvino")}
    assert len(marks) == 3 and mark_of(NET.make(), NET.task()) == mark_of(network, task)
    one, two = (Shapes((Shape("", False, kl, 10),), {"cut": "why"}) for kl in (0.1, 0.2))
    assert (
        Memory(tmp_path, "a").made("shapes", Shapes, lambda: one)
        == Memory(tmp_path, "a").made("shapes", Shapes, never)
        == one
    )
    assert Memory(tmp_path, "b").made("shapes", Shapes, lambda: two) == two


def test_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "shapes.json").write_text("{")
    with pytest.raises(BadFile, match="Delete it"):
        Memory(tmp_path, "a").made("shapes", Shapes, never)


def test_resumed_run_knows_the_seconds_spent(tmp_path):
    memory = Memory(tmp_path, "a")
    assert memory.made("epoch", float, lambda: 12.5) == 12.5 and memory.spent == []
    memory.made("shapes", Shapes, lambda: Shapes((Shape("", False, 0.1, 10),), {}), 60.0)
    again = Memory(tmp_path, "a")
    assert again.made("epoch", float, never) == 12.5 and again.made("shapes", Shapes, never, 60.0).found[0].kl == 0.1
    assert len(again.spent) == 2 and all(seconds >= 0 for seconds in again.spent)


def test_shapes_found_in_another_time_are_found_again(tmp_path):
    """With little time some cuts are left out: a longer run must try them."""
    short, long = (Shapes((Shape("", False, kl, 10),), {}) for kl in (0.1, 0.2))
    assert Memory(tmp_path, "a").made("shapes", Shapes, lambda: short, 10.0) == short
    assert Memory(tmp_path, "a").made("shapes", Shapes, lambda: long, 600.0) == long
