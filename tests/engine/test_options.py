"""Options of a run are read once, and refused before anything is computed."""

import dataclasses

import pytest
import torch
from torch import nn

import cortado
from cortado.engine.options import RunOptions
from cortado.errors import BadNetwork, BadValue
from cortado.task.task import Metric
from tests.laws.tiny_nets import BY_NAME


def test_texts_become_values():
    options = RunOptions.read(["size <= 2 KB", "latency <= 3 ms in torch_eager"], folder="x", batches=(8,), threads=2)
    assert options.limit("size").value == 2000 and options.limit("score") is None
    assert [one.name() for one in options.speed.runtimes] == ["torch_eager"]
    # A limit of latency is of one sample.
    assert (options.speed.batches, options.speed.threads) == ((1, 8), 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.resume = True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"limits": ["size <= 3 parsec"]}, "parsec"),
        ({"limits": ["size <= 1 KB", "size <= 2 KB"]}, "size is limited twice"),
        ({"limits": ["latency <= 3 ms"]}, "names no runtime"),
        ({"runtimes": ["torch_eager"], "batches": (0,)}, "batch"),
        ({"folder": "/proc/nowhere"}, "nothing can be written into /proc/nowhere"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, says):
    with pytest.raises(BadValue, match=says):
        RunOptions.read(**given)


NATS = Metric("loss", "nats", lambda outputs, targets: outputs.mean(1), higher_is_better=False)


def test_limit_in_another_unit_than_the_score_is_refused():
    task = dataclasses.replace(BY_NAME["mlp"].task(), metric=NATS)
    with pytest.raises(BadValue, match="is in %, but the metric of this task.*-1 % is a share of the original's"):
        RunOptions.read(["score >= 99 %"]).for_task(task)


@pytest.mark.parametrize(("metric", "least"), [(Metric(), 79.0), (NATS, -80.8)])
def test_relative_limit_in_percent_is_points_of_a_share_and_a_share_of_anything_else(metric, least):
    """A score of 80: 79 % of accuracy, and 80.8 nats, which is worse."""
    task, sign = dataclasses.replace(BY_NAME["mlp"].task(), metric=metric), 1 if metric.higher_is_better else -1
    (limit,) = RunOptions.read(["score >= -1 %"]).for_task(task).limits
    assert limit.kept(least + 1e-6, sign * 80.0) and not limit.kept(least - 1e-6, sign * 80.0)


class Spectrum(nn.Module):
    """Rows to the sizes of their frequencies: no operator for it in OpenVINO."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(9, 3)

    def forward(self, rows):
        return self.layer(torch.fft.rfft(rows).abs())


def spectrum_task():
    rows = torch.randn(80, 16, generator=torch.Generator().manual_seed(0))
    labels = (rows[:, 0] > 0).long()
    parts = (slice(0, 40), slice(40, 60), slice(60, 80))
    return cortado.Task(*(cortado.Data(rows[one], labels[one]) for one in parts))


def test_a_runtime_that_lacks_an_operator_is_left_out_with_a_warning():
    pytest.importorskip("openvino")
    limits, runtimes = ["score >= -5 %"], ("torch_eager", "openvino")
    _, report = cortado.compress(
        Spectrum().eval(), spectrum_task(), "quantize/weights", limits=limits, runtimes=runtimes
    )
    (said,) = (one for one in report.warnings if "openvino" in one)
    assert "cannot be converted" in said and "fft" in said and said.endswith("Nothing is measured there.")
    assert [row.runtime for row in report.exports] == ["torch_eager"]


@pytest.mark.parametrize("given", [{"runtimes": ("openvino",)}, {"limits": ["latency <= 3 ms in openvino"]}])
def test_a_runtime_that_is_needed_is_an_error_before_the_work(given):
    pytest.importorskip("openvino")
    options = RunOptions.read(given.get("limits", ()), runtimes=given.get("runtimes", ("torch_eager",)))
    with pytest.raises(BadNetwork, match=r"cannot be converted.*Nothing was done yet\.$"):
        options.for_network(Spectrum().eval(), spectrum_task())


class Lengths(nn.Module):
    """Rows of any length to three numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 3)

    def forward(self, rows):
        return self.layer(rows[..., None]).mean(1)


def test_a_file_that_cannot_take_other_lengths_is_known_at_once():
    pytest.importorskip("onnxruntime")

    def shorter(rows):
        return rows[:, : 6 + 3 * (len(rows) > 2)]

    rows = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    task = cortado.Task(*(cortado.Data(one, torch.zeros(20, dtype=torch.long), shorter) for one in rows.split(20)))
    with pytest.raises(
        BadNetwork, match=r"samples of the example and of the validation data have \(6,\) and \(9,\) .*\. Pad"
    ):
        RunOptions.read(runtimes=("onnxruntime",)).for_network(Lengths().eval(), task)
    assert RunOptions.read(runtimes=("torch_eager",)).for_network(Lengths().eval(), task).speed.runtimes
