"""Channels are cut for the time that they take, by a table that is planted here."""

import copy
import re

import pytest
import torch

from cortado.errors import CortadoError
from cortado.methods.prune.channels import PruneChannels
from cortado.network.view import View
from cortado.planner.search import widths
from cortado.planner.search.widths import Times, Widths
from cortado.runtimes.layer_times import LayerTimes
from cortado.runtimes.runtime import runtime_by_name
from tests.laws.tiny_nets import BY_NAME


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """A table in which a layer takes as long as it has products, but some take a hundred times as long."""
    dear: list[str] = []

    class Planted(LayerTimes):
        def measured(self, shape):
            factor = 100 if any(word in shape.text() for word in dear) else 1
            return 1e-4 * factor * shape.inputs * shape.outputs / shape.groups

    def layer_times_in(runtime, threads=1):
        return Planted(runtime_by_name(runtime), threads, folder=tmp_path / "".join(dear))

    monkeypatch.setattr(widths, "layer_times_in", layer_times_in)
    return dear


@pytest.mark.parametrize("net", sorted(BY_NAME))
def test_no_more_time_stays_than_was_asked_for(planted, net):
    made = BY_NAME[net]
    network, task = made.make(), made.task()
    small = copy.deepcopy(network)
    view = View(small, network, made.example)
    try:
        Widths(keep=0.7, multiple=1, by="magnitude").apply(view, task)
    except CortadoError as error:
        # What prune/channels cannot cut, this cannot either, for the same reason.
        with pytest.raises(type(error), match=re.escape(str(error).partition(": ")[2][:60])):
            PruneChannels(keep=0.7, of="multiply_adds", across=True).apply(
                View(copy.deepcopy(network), network, made.example), task
            )
        return
    before, after = (
        Times(View(one, network, made.example), widths.layer_times_in("onnxruntime")).total for one in (network, small)
    )
    assert after <= 0.7 * before * 1.02 and small(task.example).shape == network(task.example).shape


def test_predicted_times_of_a_cut_are_those_of_the_cut_network(planted):
    made = BY_NAME["residual"]
    network = made.make()
    view = View(network, network, made.example)
    times = Times(view, widths.layer_times_in("onnxruntime"))
    keeps = {group: torch.arange(group.count // 2) for group in view.groups.free}
    reported = times.after(keeps)
    view.cut(keeps)
    assert reported == pytest.approx(Times(View(network, network, made.example), times.times).total)
    assert 0 < reported < times.total and times.share({}) == 1


def test_channels_go_where_time_is_dear(planted):
    """The first channels are read and made by 3 x 3 kernels, the last ones by a 1 x 1 kernel and the head."""
    made, left = BY_NAME["depthwise"], []
    for dear in ("k3x3", "k1x1"):
        planted[:] = [dear]
        network = made.make()
        Widths(keep=0.6, multiple=1, by="magnitude").apply(View(network, made.make(), made.example), made.task())
        left.append((len(network.body[0].weight), len(network.body[5].weight)))
    assert left[0][0] < left[1][0] and left[0][1] > left[1][1]
