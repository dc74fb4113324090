"""Curvature: Optimal Brain Damage against the second derivative by finite differences."""

import torch
from torch import nn
from torch.nn import functional

from cortado.importance.curvature import Curvature
from cortado.network.view import View
from cortado.task.task import Data, Task


class AtOne(Curvature):
    """The same at softmax temperature 1, where it can be compared with the loss itself."""

    temperature = 1.0


def problem(network, samples=400, inputs=3):
    torch.manual_seed(2)
    x = torch.randn(samples, inputs)
    data = Data(x, torch.randint(0, 3, (samples,)))
    task = Task(data, data, data, calibration=data, trial=True)
    return task, View(network, network, x[:2])


def second_differences(network, weight, x, step=1e-3):
    """d2/dw2 of the mean KL between the plain and the changed outputs, one entry at a time, in double precision."""
    duplicate = network.double()
    with torch.no_grad():
        logs = functional.log_softmax(duplicate(x.double()), 1)
        flat, found = weight.data.view(-1), []
        for place in range(flat.numel()):
            start, values = float(flat[place]), []
            for move in (-step, step):
                flat[place] = start + move
                values.append((logs.exp() * (logs - functional.log_softmax(duplicate(x.double()), 1))).sum(1).mean())
            flat[place] = start
            found.append((values[0] + values[1]) / step**2)
    network.float()
    return torch.stack(found).view(weight.shape).float()


def test_diagonal_of_softmax_regression_is_the_hessian_of_kl():
    """For outputs linear in the weights the Gauss-Newton matrix is the Hessian; signs make its diagonal right in the mean."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 3)).eval()
    task, view = problem(network)
    (h,) = AtOne().diagonal(view.weights(), view, task)
    wanted = second_differences(network, network[0].weight, task.train.inputs)
    torch.testing.assert_close(h, wanted, rtol=0.25, atol=0.0)
    assert abs(float(h.sum() / wanted.sum()) - 1) < 0.06


def test_diagonal_of_a_hidden_layer_is_the_hessian_of_kl():
    """KL to the network's own outputs has its least value there, so that its Hessian is the Gauss-Newton matrix."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    task, view = problem(network)
    found = AtOne().diagonal(view.weights(), view, task)
    for h, layer in zip(found, (network[0], network[2]), strict=True):
        wanted = second_differences(network, layer.weight, task.train.inputs)
        assert abs(float(h.sum() / wanted.sum()) - 1) < 0.1
        assert float(torch.corrcoef(torch.stack([h.flatten(), wanted.flatten()]))[0, 1]) > 0.95


class AsItIs(Curvature):
    """The same, with every curvature believed as it was measured."""

    shrink = 0.0


def test_score_is_half_the_diagonal_times_the_squared_weight():
    network = nn.Sequential(nn.Linear(3, 3)).eval()
    task, view = problem(network, 50)
    (h,) = AsItIs().diagonal(view.weights(), view, task)
    (worth,) = AsItIs().of(view.weights(), view, task)
    torch.testing.assert_close(worth, h * network[0].weight.detach() ** 2 / 2)


def test_weight_that_is_silent_on_the_samples_is_not_free():
    """Its curvature is measured as 0; the mean of its tensor stands in, in two parts to one."""
    network = nn.Sequential(nn.Linear(3, 3)).eval()
    task, view = problem(network, 50)
    task.calibration.inputs[:, 1] = 0
    (h,) = Curvature().diagonal(view.weights(), view, task)
    (worth,) = Curvature().of(view.weights(), view, task)
    assert (h[:, 1] == 0).all()
    torch.testing.assert_close(worth[:, 1], h.mean() * network[0].weight.detach()[:, 1] ** 2)


def test_higher_temperature_says_more_about_what_is_known_by_heart():
    network = nn.Sequential(nn.Linear(3, 3)).eval()
    with torch.no_grad():
        network[0].weight.mul_(30)
    task, view = problem(network, 50)
    (at_one,), (at_two,) = (score.diagonal(view.weights(), view, task) for score in (AtOne(), Curvature()))
    assert at_two.sum() > at_one.sum()
