"""Scores against their formulas, by plain loops."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadRecipe
from cortado.importance.activation import Activation, per_input
from cortado.importance.importance import Importance, score
from cortado.importance.magnitude import Magnitude
from cortado.importance.magnitude_l2 import MagnitudeL2
from cortado.importance.random import Random
from cortado.importance.taylor import Taylor
from cortado.network.view import View
from cortado.task.task import Data, Task


class Own(Importance):
    """A score of one's own."""

    def of(self, weights, view, task):
        return [torch.ones(weight.shape) for weight in weights]


def problem(network, *shape, samples=32):
    torch.manual_seed(2)
    data = Data(torch.randn(samples, *shape), torch.randint(0, 2, (samples,)))
    return Task(data, data, data, calibration=data), View(network, network, data.inputs[:2])


def test_magnitude_is_the_absolute_value():
    network = nn.Sequential(nn.Linear(3, 2))
    task, view = problem(network, 3)
    assert torch.equal(Magnitude().of(view.weights(), view, task)[0], network[0].weight.detach().abs())


def test_magnitude_l2_is_measured_against_the_layers_mean_square():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    task, view = problem(network, 3)
    found = MagnitudeL2().of(view.weights(), view, task)
    for worth, layer in zip(found, network, strict=True):
        torch.testing.assert_close(worth, layer.weight.detach() ** 2 / (layer.weight.detach() ** 2).mean())


def test_taylor_is_the_mean_over_batches_of_gradient_times_weight():
    network = nn.Sequential(nn.Linear(3, 2)).eval()
    task, view = problem(network, 3)
    wanted = torch.zeros(2, 3)
    for start in (0, 16):
        x, y = task.train.inputs[start : start + 16], task.train.targets[start : start + 16]
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(x), y), [network[0].weight])
        wanted += (gradient * network[0].weight.detach()).abs() / 2
    torch.testing.assert_close(Taylor().of(view.weights(), view, task)[0], wanted)


def test_activation_is_the_weight_times_the_size_of_its_input():
    """Sun et al., 2024: |w_ij| x ||x_j||, here as the root mean square over samples and places."""
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
    task, view = problem(network, 2, 3, 3)
    found = Activation().of(view.weights(), view, task)
    x = task.train.inputs
    first = x.pow(2).mean((0, 2, 3)).sqrt().view(1, 2, 1, 1)
    second = network[:3](x).detach().pow(2).mean(0).sqrt()
    torch.testing.assert_close(found[0], network[0].weight.detach().abs() * first)
    torch.testing.assert_close(found[1], network[3].weight.detach().abs() * second)


class Apart(nn.Module):
    """A convolution and a linear layer, called for one sample at a time without a batch axis."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, images):
        return torch.stack([self.head(self.conv(image).mean((1, 2))) for image in images])


@pytest.mark.parametrize("size", [3, 7])
def test_activation_without_a_batch_axis_is_taken_by_channel(size):
    network = Apart().eval()
    task, view = problem(network, 3, size, size)
    conv, head = Activation().of(view.weights(), view, task)
    inputs = task.calibration.inputs
    wanted = network.conv.weight.detach().abs() * inputs.square().mean((0, 2, 3)).sqrt().view(1, 3, 1, 1)
    torch.testing.assert_close(conv, wanted)
    read = network.conv(inputs).mean((2, 3)).detach()
    torch.testing.assert_close(head, network.head.weight.detach().abs() * read.square().mean(0).sqrt())


def test_each_group_reads_channels_of_its_own():
    sizes = per_input(torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.Size([4, 2, 3, 3]))
    assert sizes.tolist() == [[1.0, 3.0], [1.0, 3.0], [5.0, 7.0], [5.0, 7.0]]
    assert per_input(torch.tensor([1.0, 3.0]), torch.Size([4, 2, 3, 3])).tolist() == [[1.0, 3.0]]


def test_weight_that_reads_no_activation_is_refused():
    network = nn.LSTM(3, 2)
    with pytest.raises(BadNetwork, match="has no recorded input activation. Exclude it with where"):
        task, view = problem(nn.Sequential(nn.Embedding(3, 2)), 3)
        data = Data(torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
        task = Task(data, data, data)
        Activation().of(view.weights(), view, task)
    assert network is not None


def test_random_depends_on_the_seed_alone():
    network = nn.Sequential(nn.Linear(3, 2))
    task, view = problem(network, 3)
    one, two = (Random().of(view.weights(), view, task)[0] for _ in range(2))
    assert torch.equal(one, two) and 0 <= float(one.min()) <= float(one.max()) < 1


def test_scores_are_found_by_the_names_of_their_files():
    assert isinstance(score("magnitude_l2"), MagnitudeL2)
    assert isinstance(score(f"{__name__}:Own"), Importance) if __name__ != "__main__" else True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("taylr", "Did you mean: taylor"),
        ("no_such_module:Own", "cannot be loaded"),
        ("torch.nn:Linear", "is not a Importance|cannot be loaded"),
    ],
)
def test_score_that_cannot_be_had_is_refused(name, words):
    with pytest.raises(BadRecipe, match=words):
        score(name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gains_are_ranked_in_any_float_type(dtype):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).to(dtype).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([0.5, -2.0, 1.0, 0.25]))
    task, _ = problem(network, 3)
    view = View(network, network, torch.randn(2, 3, 6, 6, dtype=dtype))
    (worth,) = score("gains").of_units(view.groups.free, view, task)
    assert worth.tolist() == [0.5, 2.0, 1.0, 0.25]


def test_depthwise_filter_counts_the_channel_it_reads():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3))
    task, view = problem(network, 3, 6, 6)
    task.calibration.inputs[:, 1] = 0
    (worth,) = Activation().of(view.weights(), view, task)
    sizes = task.calibration.inputs.square().mean((0, 2, 3)).sqrt().repeat_interleave(2)
    torch.testing.assert_close(worth, network[0].weight.detach().abs() * sizes.view(6, 1, 1, 1))
    assert float(worth[2:4].abs().max()) == 0 and float(worth[4:].min()) > 0


class Table(nn.Module):
    """Units that no layer makes: rows of a table, a norm, a linear layer."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.head = nn.Parameter(torch.randn(9, 6)), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, numbers):
        return self.head(self.norm(self.table[numbers]).mean(1))


@pytest.mark.parametrize("name", ["random", "magnitude", "magnitude_l2"])
def test_units_are_ranked_by_vectors_too(name):
    torch.manual_seed(1)
    network = Table().eval()
    data = Data(torch.randint(0, 9, (16, 4)), torch.zeros(16, dtype=torch.long))
    view, task = View(network, network, data.inputs[:2]), Task(data, data, data, calibration=data)
    groups = view.groups.all
    shapes = [worth.shape for worth in score(name).of_units(groups, view, task)]
    assert shapes and shapes == [(group.count,) for group in groups]


class Twice(nn.Module):
    """One reader called twice, the second time with silence."""

    def __init__(self):
        super().__init__()
        self.make, self.read = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, activation):
        made = torch.relu(self.make(activation)) + 1
        return self.read(made) + self.read(made * 0)


def test_zeros_counts_all_calls_of_a_reader():
    network = Twice()
    task, view = problem(network, 4)
    (worth,) = score("zeros").of_units(view.groups.free, view, task)
    torch.testing.assert_close(worth, torch.full((5,), 0.5))
