"""Timing: ratios of known work, the noise that is found, and what is reported of it."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork, BadValue, MissingPackage
from cortado.report.report import Clock, Ratio, Time
from cortado.runtimes import timing
from cortado.runtimes.by_layer import time_layers
from cortado.runtimes.file_bench import bench_file
from cortado.runtimes.measured import batch_of, measure
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.peak import Peak, measure_peak
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.speed import Speed, busy, latency_lines, speed_wanted
from cortado.runtimes.split import find_cuts
from cortado.runtimes.timing import clock, interleaved, is_noisy, speed_ratio
from cortado.task.limits import read_limits
from tests.laws.tiny_nets import BY_NAME, TINY_NETS


def test_calls_take_turns():
    order = []
    rounds = interleaved(
        [lambda: (order.append("a"), time.sleep(0.005)), lambda: (order.append("b"), time.sleep(0.005))], 0.1
    )
    assert rounds.shape[1] == 2 and len(rounds) >= 10
    describe = "".join(order)
    assert describe.endswith(("ab" * len(rounds), "aabb" * 3))


def test_ratio_is_the_median_of_the_rounds():
    found = speed_ratio(np.array([2.0, 4.0, 8.0, 100.0, 2.0]), np.array([1.0, 2.0, 4.0, 1.0, 1.0]))
    assert found.median == 2 and found.low == 2 and found.high == 2


@pytest.mark.parametrize(
    ("again", "noisy"), [(Ratio(1.01, 0.95, 1.06), False), (Ratio(1.2, 1.1, 1.3), True), (Ratio(1.0, 0.5, 2.0), True)]
)
def test_noise_is_a_network_that_is_not_as_fast_as_itself(again, noisy):
    assert is_noisy(again) == noisy


def test_clock_gives_three_ratios(monkeypatch):
    """Times made up: eager 12, plain onnxruntime 6, plain openvino 4, compressed onnxruntime 3."""
    monkeypatch.setattr(timing, "interleaved", lambda calls, seconds: np.array([[call() for call in calls]] * 12))
    variants = {
        ("original", "torch_eager"): lambda: 12.0,
        ("original", "onnxruntime"): lambda: 6.0,
        ("original", "openvino"): lambda: 4.0,
        ("compressed", "onnxruntime"): lambda: 3.0,
    }
    found = clock(variants, 1, 1, control="onnxruntime")
    row = next(row for row in found.times if row.network == "compressed")
    assert (row.over_eager.median, row.over_same.median, row.over_best.median) == (4, 2, pytest.approx(4 / 3))
    assert found.best == "openvino" and found.again.median == 1 and not found.noisy


def test_clock_needs_what_ratios_are_taken_over():
    with pytest.raises(BadValue, match="torch_eager is missing"):
        clock({("original", "onnxruntime"): lambda: None}, 1, 1)


def test_clock_is_noisy_when_a_time_varies(monkeypatch):
    shaky = np.array([[1.0, 5.0 if place % 2 else 1.0, 1.0] for place in range(12)])
    monkeypatch.setattr(timing, "interleaved", lambda calls, seconds: shaky)
    made = clock({("original", "torch_eager"): lambda: None, ("compressed", "torch_eager"): lambda: None}, 1, 1)
    assert made.noisy and busy([made])


def test_measure_exports_scores_and_times_both():
    net = BY_NAME["mlp"]
    exports, clocks = measure(net.make(), net.make(), net.task(), [Onnxruntime()], batches=(1, 3), seconds=0.1)
    assert [row.runtime for row in exports] == ["onnxruntime"] and exports[0].samples == len(net.task().test)
    assert [found.batch for found in clocks] == [1, 3]
    names = {(row.network, row.runtime) for row in clocks[0].times}
    assert {("compressed", "onnxruntime"), ("original", "onnxruntime"), ("original", "torch_eager")} <= names
    assert all(row.low_ms <= row.median_ms <= row.high_ms for row in clocks[0].times)


def test_runtime_that_cannot_run_the_original_is_left_out(monkeypatch):
    net = BY_NAME["mlp"]

    def refuse(*_):
        raise BadNetwork("no such operator here")

    monkeypatch.setattr("cortado.runtimes.openvino.Openvino.lower", refuse)
    exports, clocks = measure(net.make(), net.make(), net.task(), [Onnxruntime()], seconds=0.1)
    assert [row.runtime for row in exports] == ["onnxruntime"]
    assert {time.runtime for time in clocks[0].times} == {"onnxruntime", "torch_eager"}
    with pytest.raises(BadNetwork, match="no such operator"):
        measure(net.make(), net.make(), net.task(), [runtime_by_name("openvino")], seconds=0.1)


def test_batch_is_made_of_the_example():
    left, right = torch.arange(2.0)[:, None], torch.arange(3.0)
    made = batch_of((left, right), 5)
    assert made[0].flatten().tolist() == [0, 1, 0, 1, 0] and torch.equal(made[1], right)


def one_clock() -> Clock:
    one = Ratio(1.0, 1.0, 1.0)
    times = tuple(
        Time(network, runtime, value, value, value, one, one, one)
        for network, runtime, value in [("original", "onnxruntime", 4.0), ("compressed", "onnxruntime", 2.0)]
    )
    return Clock(1, 1, 10, times, "onnxruntime", "onnxruntime", one, False)


@pytest.mark.parametrize(("limit", "met"), [("latency <= 3 ms", True), ("latency <= 1 ms in onnxruntime", False)])
def test_latency_limit_is_checked_on_the_exported_file(limit, met):
    speed = Speed((runtime_by_name("onnxruntime"),))
    (line,) = latency_lines(one_clock(), speed, read_limits([limit]))
    assert (line.original, line.compressed, line.limit, line.met) == (4.0, 2.0, limit, met)


def test_latency_limit_without_a_runtime_is_refused():
    with pytest.raises(BadValue, match="names no runtime"):
        speed_wanted((), read_limits(["latency <= 3 ms"]))
    assert [r.name() for r in speed_wanted((), read_limits(["latency <= 3 ms in openvino"])).runtimes] == ["openvino"]


@pytest.mark.parametrize("text", ["latency >= 3 ms", "latency <= 3 KB", "latency <= 0 ms", "size <= 3 KB in openvino"])
def test_latency_limit_of_the_wrong_sort_is_refused(text):
    with pytest.raises(BadValue):
        read_limits([text])


def test_limit_in_a_missing_runtime_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(Onnxruntime, "available", lambda self: False)
    with pytest.raises(MissingPackage, match=r"pip install -e '\.\[onnx\]'"):
        speed_wanted(("onnxruntime",), ())


def test_file_of_anybody_is_timed(tmp_path):
    file = Onnxruntime().lower(nn.Linear(3, 2), torch.randn(2, 3), tmp_path)
    found = bench_file(file, batch=4, seconds=0.1)
    assert found.median_ms > 0 and found.batch == 4 and "(4, 3)" in found.inputs[0]
    assert "A/A" in found.text() and "threads 1" in found.text()


def test_file_with_open_axes_asks_for_their_length(tmp_path):
    length = torch.export.Dim("length")
    program = torch.export.export(
        nn.ReLU(), (torch.randn(2, 5),), dynamic_shapes=({0: torch.export.Dim("batch"), 1: length},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(BadValue, match="--open-axes"):
        bench_file(tmp_path / "net.pt2", seconds=0.05)
    with pytest.raises(BadValue, match="open axes must be above 0"):
        bench_file(tmp_path / "net.pt2", seconds=0.05, open_axes=-7)
    assert "(1, 7)" in bench_file(tmp_path / "net.pt2", seconds=0.05, open_axes=7).inputs[0]


@pytest.mark.parametrize(("name", "batch", "error"), [("gone.onnx", 1, BadFile), ("gone.onnx", 0, BadValue)])
def test_bench_refuses_what_cannot_be_timed(tmp_path, name, batch, error):
    with pytest.raises(error):
        bench_file(tmp_path / name, batch=batch)


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads):
    net = BY_NAME["mlp"]
    with pytest.raises(BadValue, match="at least 1"):
        time_layers(net.make(), net.example, threads)
    with pytest.raises(BadValue, match="at least 1"):
        find_cuts(net.make(), net.example, threads)
    with pytest.raises(BadValue, match="at least 1"):
        measure(net.make(), net.make(), net.task(), [], threads=threads)


def test_roofline_is_the_slower_of_work_and_memory():
    peak = Peak(multiply_adds=1e9, bytes_moved=1e9, threads=1)
    assert peak.least_ms(1e6, 0) == 1 and peak.least_ms(0, 2e6) == 2 and peak.least_ms(1e6, 2e6) == 2


def test_peak_is_above_what_any_one_product_reaches():
    peak = measure_peak(seconds=0.02)
    assert peak.multiply_adds > 1e8 and peak.bytes_moved > 1e8 and "GFLOP/s" in peak.text()


@pytest.mark.parametrize("net", TINY_NETS, ids=lambda net: net.name)
def test_time_is_that_of_the_layers(net):
    found = time_layers(net.make(), net.example, rounds=2)
    linear = [row for row in found.by_kind() if row.kind == "Linear"]
    assert linear and linear[0].median_ms > 0 and found.whole_ms > 0
    assert all(row.roofline is None or row.roofline >= 0 for row in found.rows)
    assert "roofline" in found.text()


def test_slow_layer_is_found():
    class Slow(nn.Module):
        def forward(self, activation):
            time.sleep(0.01)
            return activation

    found = time_layers(nn.Sequential(nn.Linear(3, 3), Slow()), torch.randn(2, 3), rounds=3)
    assert found.by_kind()[0].kind == "Slow" and found.by_kind()[0].median_ms > 9


def test_cuts_are_where_one_tensor_is_alive():
    cuts = find_cuts(BY_NAME["residual"].make(), BY_NAME["residual"].example, rounds=2).cuts
    # The residual block has two tensors alive inside, so nothing is cut between its ends.
    assert [cut.shape for cut in cuts] == [(1, 1, 6, 6), (1, 6, 6, 6), (1, 6), (1, 4)]
    assert [cut.size_bytes for cut in cuts] == [144, 864, 24, 16]
    assert [cut.before_ms for cut in cuts] == sorted(cut.before_ms for cut in cuts)
    whole = cuts[-1].before_ms
    assert all(cut.before_ms + cut.after_ms == pytest.approx(whole) for cut in cuts)


@pytest.mark.parametrize("name", ["mlp", "depthwise", "transformer", "recurrent"])
def test_cuts_begin_with_the_input_and_end_with_the_output(name):
    net = BY_NAME[name]
    cuts = find_cuts(net.make(), net.example, rounds=1).cuts
    assert cuts[0].operator == "input" and cuts[-1].shape == (1, 4) and cuts[-1].after_ms == pytest.approx(0, abs=1e-9)
