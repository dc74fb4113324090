"""What runtimes add to a report: each stage's time, in its order, whatever cannot run in between."""

import pytest
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork
from cortado.methods.method import Method
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.report.report import Line, Stage
from cortado.runtimes import speed as speed_file
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.speed import Speed, stages_in_time
from tests.attacks.test_files import Own
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]
LINE = Line("latency in onnxruntime, batch 8, threads 1", "ms", 10.0, 4.0)


@pytest.fixture
def watched(monkeypatch):
    """Stopwatches that were made; they take as many milliseconds as a network has outputs, and refuse one without any."""
    made = []

    class Watch:
        original_ms = 20.0

        def __init__(self, original, task, runtime, threads, batch):
            made.append((runtime.name(), threads, batch))

        def ms(self, network):
            if not isinstance(network, nn.Linear):
                raise BadNetwork("export: it does not run there.")
            return float(network.out_features)

    monkeypatch.setattr(speed_file, "Stopwatch", Watch)
    return made


def test_stages_have_their_times_in_order_on_the_scale_of_the_line(watched):
    stages = tuple(Stage(name, {}, 0.0, 1, 1.0, 1.0) for name in "abcd")
    earlier = [nn.Identity, lambda: nn.Linear(1, 20), lambda: nn.Linear(1, 5)]
    speed = Speed((runtime_by_name("onnxruntime"),), (8,), 1)
    found = stages_in_time(stages, LINE, earlier, NET.make(), NET.task(), speed)
    assert [one.latency_ms for one in found] == [None, 10.0, 2.5, 4.0] and watched == [("onnxruntime", 1, 8)]
    assert [one.latency_ms for one in stages_in_time(stages[:1], LINE, [], NET.make(), NET.task(), speed)] == [4.0]


class Negated(Method):
    """Holds every weight in a form that only this file knows."""

    lossy = True

    def apply(self, view, task):
        for weight in view.weights("*"):
            weight.set_form(Own(weight.dense() + 1e-3))


def test_a_form_of_ones_own_in_an_earlier_stage_is_timed():
    """The network that is left in the end knows nothing of it any more."""
    recipe = [Negated(), QuantizeWeights(bits=8)]
    _, report = compress(NET.make(), NET.task(), recipe, runtimes=["onnxruntime"])
    assert all(one.latency_ms is not None and one.latency_ms > 0 for one in report.stages)
