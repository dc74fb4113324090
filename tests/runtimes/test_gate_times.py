"""Gate times: the break-even by hand, what people read of it, and the networks that are timed."""

import math
import re

import pytest
import torch

from cortado.runtimes.gate_times import GateTimes, break_even, forced, gate_times, gates_of, skipped_share, ungated
from cortado.runtimes.onnxruntime import Onnxruntime
from tests.methods.conditional.test_gates import gated, net, task


@pytest.mark.parametrize(
    ("without", "opened", "shut", "share"),
    [(10, 12, 2, 0.2), (10, 9, 2, 0.0), (10, 20, 15, 2.0), (10, 12, 12, math.inf), (10, 12, 13, math.inf)],
)
def test_break_even_is_where_the_line_meets_the_time_without_gates(without, opened, shut, share):
    assert break_even(without, opened, shut) == pytest.approx(share)
    if 0 < share <= 1:
        assert opened - share * (opened - shut) == pytest.approx(without)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((10, 12, 2, 8, 0.4), "gates skip 40% of their blocks, above the break-even of 20%: 8 ms with gates"),
        ((10, 12, 2, 11, 0.1), "10% of their blocks, below the break-even of 20%: .* Lower target, or choose larger"),
        ((10, 20, 15, 17, 0.6), "and cannot pay: 17 ms with gates, 10 ms without. Take them off"),
        ((10, 12, 13, 12, 1.0), "and cannot pay"),
    ],
)
def test_people_read_whether_gates_pay(times, words):
    assert re.search(words, GateTimes(*times).text())


@pytest.fixture(scope="module")
def network():
    return gated(start=0.5).network


def test_all_gates_open_are_the_network_without_gates(network):
    inputs = task().test.inputs
    assert torch.equal(forced(network, True)(inputs), ungated(network)(inputs))
    assert not gates_of(ungated(network)) and len(gates_of(network)) == len(gates_of(forced(network, True))) > 0


def test_skipped_shares_are_counted(network):
    inputs = [task().test.inputs]
    assert skipped_share(forced(network, True), inputs) == 0
    assert skipped_share(forced(network, False), inputs) == 1
    network(inputs[0])
    shares = [1 - float(gate.gate_rows.ran.rows.float().mean()) for gate in gates_of(network)]
    assert skipped_share(network, inputs) == pytest.approx(sum(shares) / len(shares))


def test_a_runtime_is_timed_with_and_without(network):
    pytest.importorskip("onnxruntime")
    inputs = [task().test.inputs[start : start + 1] for start in range(4)]
    found = gate_times(Onnxruntime(), network, task().example, inputs, seconds=0.05)
    assert min(found.without_ms, found.open_ms, found.shut_ms, found.deciding_ms) > 0 and 0 <= found.skipped <= 1


def test_a_network_without_gates_has_no_gate_times():
    assert gate_times(Onnxruntime(), net(), task().example, []) is None
