"""Divergence: the task's kind of outputs, fitted to the original network's outputs on calibration data."""

import pytest
import torch
from torch import nn

from cortado.network.compare.divergence import divergence_for, output_rows
from cortado.task.data import Data
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.several import Several
from cortado.task.task import Task


class Pair(nn.Module):
    """Classes and numbers, in a tuple, a dict or a nested one."""

    def __init__(self, holder):
        super().__init__()
        self.holder, self.classes, self.numbers = holder, nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.holder(self.classes(inputs), self.numbers(inputs))


HOLDERS = {
    "tuple": lambda classes, numbers: (classes, numbers),
    "dict": lambda classes, numbers: {"classes": classes, "numbers": numbers},
    "nested": lambda classes, numbers: {"first": [classes, None], "second": (torch.arange(len(classes)), numbers)},
}


def test_a_task_says_what_its_outputs_are():
    inputs = torch.randn(20, 3)
    data = Data(inputs, torch.zeros(20))
    assert divergence_for(nn.Identity(), Task(data, data, data)) == Classes()
    numbers = divergence_for(nn.Identity(), Task(data, data, data, outputs=Numbers()))
    assert numbers.variance == pytest.approx(float(inputs.var(0, correction=0).mean()), rel=1e-5)


@pytest.mark.parametrize("holder", list(HOLDERS))
def test_every_float_output_counts_by_default_each_in_its_own_variance(holder):
    torch.manual_seed(0)
    network, inputs = Pair(HOLDERS[holder]).eval(), torch.randn(40, 3)
    data = Data(inputs, torch.zeros(40))
    kind = divergence_for(network, Task(data, data, data))
    spreads = [
        float(layer(inputs).detach().var(0, correction=0).mean()) for layer in (network.classes, network.numbers)
    ]
    assert isinstance(kind, Several)
    assert [one.variance for _, one in kind.kinds] == pytest.approx(spreads, rel=1e-4)
    before = output_rows(network, inputs, kind)
    with torch.no_grad():
        network.numbers.bias += 0.5
    found = kind.divergence(before, output_rows(network, inputs, kind))
    torch.testing.assert_close(found, torch.full((40,), 0.5 * 0.25 / spreads[1]))


def test_outputs_of_other_lengths_in_each_batch_are_fitted_together():
    class Ragged(nn.Module):
        def forward(self, inputs):
            return inputs[:, : int(inputs[0, 0, 0])]

    inputs = torch.randn(40, 5, 2)
    inputs[:32, 0, 0], inputs[32:, 0, 0] = 2, 4
    data = Data(inputs, torch.zeros(40))
    kind = divergence_for(Ragged(), Task(data, data, data, outputs=Numbers()))
    rows = torch.cat([inputs[:32, :2].flatten(0, 1), inputs[32:, :4].flatten(0, 1)])
    assert kind.variance == pytest.approx(float(rows.double().var(0, correction=0).mean()))
