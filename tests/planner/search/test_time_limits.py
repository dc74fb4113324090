"""Time limits of goals, on a clock that counts multiply-adds: a busy machine decides nothing."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from cortado.planner.search import goal
from cortado.planner.search.goal import MEASURING_SHARE, reach
from cortado.planner.search.shapes import Shape, Shapes
from tests.planner.search.test_shifted_limits import hidden, trained

LIMIT, SECONDS = "score >= -1 %", 60.0
PASS = 200 * (100 * 3 * 9 * 8 + 800 * 2)
"""Multiply-adds of the network for the 200 validation samples."""


class Counting:
    """A clock that goes on as networks compute: `passes` a second over the validation data, training at three times that."""

    def __init__(self, passes):
        self.now, self.rate = 0.0, passes * PASS

    def __call__(self):
        return self.now

    def count(self, layer, inputs, outputs):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            often = 3 if torch.is_grad_enabled() else 1
            self.now += often * outputs.numel() * layer.weight[0].numel() / self.rate


@pytest.fixture
def clock(request, monkeypatch):
    made = Counting(request.param)
    handle = register_module_forward_hook(made.count)
    monkeypatch.setattr("time.perf_counter", made)
    yield made
    handle.remove()


@pytest.mark.parametrize("clock", [0.02, 0.5, 4.0], indirect=True, ids=["slow", "usual", "fast"])
def test_a_minute_is_enough_to_keep_what_8_bits_keep(tmp_path, clock, monkeypatch):
    """On any machine the first trial is 8 bits, the forecast takes a third of the minute, and no miss is the result."""
    spent, curve = [], goal.size_accuracy_curve

    def measured(*arguments, **options):
        begun = clock.now
        found = curve(*arguments, **options)
        spent.append(clock.now - begun)
        return found

    monkeypatch.setattr(goal, "size_accuracy_curve", measured)
    net = trained()
    clock.now = 0.0
    got = reach(net, hidden(), [LIMIT], time_limit=SECONDS, folder=tmp_path)
    first = got.trials[0]
    assert first.shape == "8 bits" and first.keeps_all and not first.trained
    assert got.best.keeps_all, [one.kept_text() for one in got.trials]
    assert all(one <= MEASURING_SHARE * SECONDS for one in spent), spent
    # Where the first trial takes the whole minute, nothing is foreseen; else there are trials beside it.
    assert bool(spent) is (first.seconds < SECONDS) is (len(got.trials) > 1)
    # No trial starts late: all but the last end within the minute.
    assert sum(spent) + sum(one.seconds for one in got.trials[:-1]) <= max(SECONDS, first.seconds) * 1.05


@pytest.mark.parametrize("clock", [0.5], indirect=True)
@pytest.mark.parametrize("late", [0.0, 0.9])
def test_cuts_and_curve_together_take_a_third(tmp_path, clock, monkeypatch, late):
    """However long the cuts took, what is left of the third is the curve's."""
    given = []

    def explored(self, *_, **__):
        clock.now += late * SECONDS
        return Shapes((Shape("", False, 0.0, 100),), {})

    def curve(*_, time_limit, **__):
        given.append(time_limit)
        raise KeyboardInterrupt

    monkeypatch.setattr(goal.Explorer, "explored", explored)
    monkeypatch.setattr(goal, "size_accuracy_curve", curve)
    with pytest.raises(KeyboardInterrupt):
        reach(trained(), hidden(), [LIMIT], time_limit=SECONDS, folder=tmp_path)
    assert given == [pytest.approx(max(1e-9, MEASURING_SHARE * SECONDS - late * SECONDS), abs=1e-6)]
