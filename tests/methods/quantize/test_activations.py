"""quantize/activations: grids where they belong, few bytes, notes that say what stays in floats."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.engine.compress import compress
from cortado.errors import BadTask, BadValue, NothingChanged
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.network.statistics.ranges import RANGES
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.runtimes import compare
from cortado.runtimes.export import export
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME
from tests.network.quantizers.test_placement import Chained

NET = BY_NAME["residual"]


def applied(method: QuantizeActivations, net=NET):
    network, original, task = net.make(), net.make(), net.task()
    view = View(network, original, net.example)
    method.apply(view, task)
    return network, original, view


@pytest.mark.parametrize("range_name", RANGES)
def test_eight_bits_are_near_and_two_are_not(range_name):
    inputs = NET.task().validation.inputs
    with torch.no_grad():
        far = []
        for bits in (8, 2):
            network, original, _ = applied(QuantizeActivations(bits=bits, edges=bits, sums=bits, range=range_name))
            far.append(float((network(inputs) - original(inputs)).abs().mean() / original(inputs).abs().mean()))
    assert far[0] < 0.1 < far[1] * 2


def test_activations_that_are_never_negative_have_unsigned_grids():
    network, _, _ = applied(QuantizeActivations(range="full"))
    zeros = {place: int(activation.zero) for place, activation in sites(network).items()}
    assert zeros[("stem", "input")] > 0
    assert 0 in zeros.values()


def test_steps_have_three_digits():
    network, _, _ = applied(QuantizeActivations())
    for activation in sites(network).values():
        assert torch.equal(activation.scale, activation.scale.bfloat16().float())


def test_only_the_layers_that_where_takes():
    network, _, _ = applied(QuantizeActivations(where="first.weight"))
    some, _, _ = applied(QuantizeActivations())
    assert 0 < len(sites(network)) < len(sites(some))
    assert ("first", "input") in sites(network)


def test_network_without_such_layers_is_refused():
    net = BY_NAME["recurrent"]
    with pytest.raises(
        NothingChanged, match="it needs a convolution or linear layer that runs, .* under where: 'lstm'"
    ):
        applied(QuantizeActivations(where="lstm"), net)


def test_steps_that_stay_in_floats_are_in_the_report():
    drawn = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task(*(Data(part, torch.zeros(32, dtype=torch.long)) for part in drawn.split(32)))
    network = Chained().eval()
    view = View(copy.deepcopy(network), network, task.example)
    QuantizeActivations().apply(view, task)
    assert (
        view.notes[0]
        == "2 operations stay in floats, because there is no layer at which to quantize them: the network."
    )


def test_a_second_rounding_replaces_the_first_and_is_measured_without_it():
    network, original, _ = applied(QuantizeActivations(bits=2))
    QuantizeActivations(bits=8).apply(View(network, original, NET.example), NET.task())
    once, _, _ = applied(QuantizeActivations(bits=8))
    assert {place: (s.width, float(s.parts()["scale"])) for place, s in sites(network).items()} == {
        place: (s.width, float(s.parts()["scale"])) for place, s in sites(once).items()
    }


def test_constant_activations_are_told():
    net = BY_NAME["mlp"]
    network = net.make()
    network[0].weight.data.zero_()
    network[0].bias.data.zero_()
    view = View(network, net.make(), net.example)
    QuantizeActivations().apply(view, net.task())
    assert "1 activations are constant on the calibration data; the first is at 1." in view.notes


def test_calibration_data_with_holes_are_refused():
    task = NET.task()
    task.calibration.inputs[5, 0, 0, 0] = float("nan")
    with pytest.raises(BadTask, match="NaN or infinite values on the calibration data"):
        QuantizeActivations().apply(View(NET.make(), NET.make(), NET.example), task)


@pytest.mark.parametrize("range_name", RANGES)
def test_constant_calibration_data_are_told(range_name):
    task = NET.task()
    task.calibration.inputs[:] = 2.0
    view = View(NET.make(), NET.make(), NET.example)
    QuantizeActivations(range=range_name).apply(view, task)
    assert "1 activations are constant on the calibration data; the first is at stem." in view.notes


@pytest.mark.parametrize("range_name", RANGES)
def test_outliers_that_leave_the_rest_few_steps_are_told(range_name):
    task = NET.task()
    task.calibration.inputs[0, 0, 0, 0] = 1e6
    view = View(NET.make(), NET.make(), NET.example)
    QuantizeActivations(range=range_name).apply(view, task)
    assert any("within a few steps of their grid" in note and "the input of stem" in note for note in view.notes)


def test_activations_smaller_than_any_step_are_told():
    task = NET.task()
    task.calibration.inputs[:] *= 1e-12
    view = View(NET.make(), NET.make(), NET.example)
    QuantizeActivations().apply(view, task)
    assert any("within a few steps of their grid" in note for note in view.notes)


def test_sound_calibration_data_are_not_told():
    for range_name in RANGES:
        _, _, view = applied(QuantizeActivations(range=range_name))
        assert not any("grid" in note or "are constant" in note for note in view.notes)


def test_calibration_data_too_far_apart_are_refused():
    task = NET.task()
    task.calibration.inputs[0, 0, 0, :2] = torch.tensor([3e38, -3e38])
    with pytest.raises(BadTask, match="more than float32 can represent. Scale the data down"):
        QuantizeActivations().apply(View(NET.make(), NET.make(), NET.example), task)


def test_no_calibration_data_are_refused():
    task = NET.task()
    with pytest.raises(BadTask, match="the data are empty, got 0 samples"):
        replace(task, calibration=(task.train.inputs[:0], task.train.targets[:0]))
    with pytest.raises(BadValue, match=r"quantize/activations: images must lie in 1.., got 0"):
        QuantizeActivations(images=0)


def test_one_calibration_sample_will_do():
    task = NET.task()
    view = View(NET.make(), NET.make(), NET.example)
    QuantizeActivations().apply(view, replace(task, calibration=task.calibration.first(1)))
    assert sites(view.network)


@pytest.mark.parametrize("field", ["edges", "sums"])
@pytest.mark.parametrize("bits", [1, 9])
def test_bits_of_edges_and_sums_out_of_range_are_refused(field, bits):
    with pytest.raises(BadValue, match=f"quantize/activations: {field} must lie in 2..8, got {bits}"):
        QuantizeActivations(**{field: bits})


@pytest.mark.parametrize("bits", [0, 1, 9])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(BadValue, match="quantize/activations: bits must lie in 2..8"):
        QuantizeActivations(bits=bits)


def test_stage_of_a_recipe_costs_a_few_bytes_and_composes():
    small, report = compress(
        NET.make(), NET.task(), "quantize/weights bits=8 | quantize/activations | finetune epochs=0.5"
    )
    sizes = [stage.size_bytes for stage in report.stages]
    assert 0 < sizes[1] - sizes[0] < 12 * len(sites(small)) + 40
    assert len(sites(small)) > 3


class Summed(torch.nn.Module):
    """Two layers whose outputs are clipped, by a function, and summed before the third reads them."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = low
        self.first, self.second, self.third = torch.nn.Linear(4, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)

    def forward(self, inputs):
        inner = self.first(inputs)
        clipped = torch.nn.functional.hardtanh(self.second(inner), self.low, 1.0)
        return self.third(clipped + torch.nn.functional.hardtanh(inner * 2, self.low, 1.0))


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_only_a_clip_at_zero_takes_what_is_negative_from_the_grid(low):
    torch.manual_seed(0)
    original, data = Summed(low), Data(torch.randn(64, 4), torch.arange(64) % 2)
    network, task = copy.deepcopy(original), Task(data, data, data, batch=8)
    QuantizeActivations().apply(View(network, original, task.example), task)
    assert (int(sites(network)["second", "output"].zero) == 0) == (low == 0)
    with torch.no_grad():
        assert float((network(data.inputs) - original(data.inputs)).abs().max()) < 0.03


@pytest.mark.parametrize("order", ["weights activations", "activations weights"])
def test_overflowing_layers_are_noted_in_any_order_of_stages(monkeypatch, order):
    stages = {"weights": "quantize/weights bits=8", "activations": "quantize/activations images=16"}
    for saturates in (True, False):
        monkeypatch.setattr(compare, "processor_saturates", lambda saturates=saturates: saturates)
        _, report = compress(NET.make(), NET.task(), " | ".join(stages[word] for word in order.split()))
        assert any("no VNNI" in warning for warning in report.warnings) == saturates


class Head(nn.Module):
    """A convolution that runs at two scales, with one norm for both or one for each."""

    def __init__(self, norms: int) -> None:
        super().__init__()
        self.enter, self.shared, self.leave = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(norms))
        for norm in self.norms:
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        fine = torch.relu(self.enter(images))
        parts = (fine, functional.max_pool2d(fine, 2))
        made = [torch.relu(self.norms[-n](self.shared(part))) for n, part in enumerate(parts)]
        return torch.cat([self.leave(one).mean((2, 3)) for one in made], 1)


@pytest.mark.parametrize("norms", [1, 2])
def test_a_shared_layer_runs_in_integers_or_is_said_not_to(norms, tmp_path):
    torch.manual_seed(0)
    images = torch.randn(32, 3, 10, 10)
    data = Data(images, torch.arange(32) % 4)
    task = Task(data, data, data, trial=True, device="cpu")
    small, report = compress(Head(norms).eval(), task, "quantize/weights bits=8 | quantize/activations")
    row = export(small, task, Onnxruntime(), tmp_path / "out")
    describe = [note for note in report.warnings if "cannot be folded: shared. A shared layer" in note]
    assert (tuple(one.layer for one in row.placements if one.kernel == "float32"), len(describe)) == (
        ((), 0) if norms == 1 else (("shared",), 1)
    )
    assert (row.integer_share > 0.99) == (norms == 1)


def test_a_layer_that_is_not_rounded_is_not_said_to_stay_in_floats():
    torch.manual_seed(0)
    network, images = Head(2).eval(), torch.randn(32, 3, 10, 10)
    data = Data(images, torch.arange(32) % 4)
    view = View(network, copy.deepcopy(network), images[:2])
    QuantizeActivations(where="leave.weight").apply(view, Task(data, data, data, trial=True))
    assert not any("folded" in note for note in view.notes)
