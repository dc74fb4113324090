"""Shapes: cuts are measured, in bytes and in time; what cannot be cut says why."""

import pytest
import torch
from torch import nn

from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.network.weight import parameter_places
from cortado.planner.search.shapes import (
    Explorer,
    Shape,
    rest_bytes,
    shaped,
    tail_of,
    words,
)
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.stopwatch import Stopwatch
from cortado.runtimes.timing import interleaved
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
CUT = "prune/channels keep=0.5"


@pytest.fixture(scope="module")
def found():
    network, task = NET.make(), NET.task()
    watch = Stopwatch(network, task, runtime_by_name("torch_eager"), seconds=0.05)
    cuts = (CUT, f"{CUT} | factorize/tucker keep=0.5", "prune/heads keep=0.5")
    return Explorer(network, task, watch).explored(cuts)


def test_each_cut_is_measured_in_floats_and_in_whole_numbers(found):
    names = [one.text() for one in found.found]
    both = "prune/channels keep=0.5, factorize/tucker keep=0.5"
    assert names[:4] == ["no cut", "no cut, integers", words(CUT), f"{words(CUT)}, integers"]
    assert both in names
    assert all((one.latency_ms or 0) > 0 for one in found.found)
    original, narrow = found.found[0], found.found[2]
    assert original.kl == pytest.approx(0, abs=1e-9) and original.work == 1 and narrow.kl > 0 and narrow.work < 0.8
    assert "prune/heads keep=0.5" in found.refused and "head" in found.refused["prune/heads keep=0.5"]


def test_table_says_what_keeps_a_limit(found):
    said = found.text("onnxruntime", 1e9)
    assert said.count("  met") == len(found.found) and "prune/heads keep=0.5: " in said
    assert "too slow" in found.text("onnxruntime", 1e-9) and "limit" not in found.text("onnxruntime")


def test_no_cut_begins_when_the_time_is_over():
    found = Explorer(NET.make(), NET.task()).explored((CUT,), seconds=0)
    assert [one.cut for one in found.found] == [""] and "time was up" in found.refused[CUT]
    assert found.found[0].latency_ms is None


def test_a_cut_continues_from_what_it_begins_with():
    network, task = NET.make(), NET.task()
    once = shaped(network, network, task, f"{CUT} | factorize/tucker keep=0.5")
    twice = shaped(shaped(network, network, task, CUT), network, task, " factorize/tucker keep=0.5")
    with torch.no_grad():
        torch.testing.assert_close(once(NET.example), twice(NET.example))


def test_other_weights_are_counted_apart_from_matrices():
    network, task = NET.make(), NET.task()
    tail = tail_of(network, task)
    assert "quantize/floats" in tail
    attached = {weight.path for weight in parameter_places(network) if len(weight.shape) > 1}
    records = sum(row.size_bytes for row in layer_rows(network, network) if row.path in attached)
    assert rest_bytes(network, network, task, "") == len(encode(network, network)) - records
    assert len(encode(shaped(network, network, task, tail, match=False), network)) < len(encode(network, network))


def test_stopwatch_tells_a_slow_network_from_a_fast_one():
    data = Data(torch.randn(8, 256), torch.zeros(8, dtype=torch.int64))
    task = Task(data, data, data)
    small, large = (nn.Sequential(nn.Linear(256, wide), nn.ReLU(), nn.Linear(wide, 4)).eval() for wide in (64, 8192))
    watch = Stopwatch(small, task, runtime_by_name("onnxruntime"), seconds=0.05)
    assert watch.ms(large) > 3 * watch.ms(small) and len(interleaved([watch.original_call], 0.01)) >= 10


def test_words_are_short():
    assert words("") == "no cut" and Shape("", True, 0.0, 0).text() == "no cut, integers"
    assert words("prune/blocks keep=0.5 samples=128 | prune/channels keep=0.4 by=x") == (
        "prune/blocks keep=0.5, prune/channels keep=0.4"
    )
