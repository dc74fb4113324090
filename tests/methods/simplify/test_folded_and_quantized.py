"""Folded norms leave no layer in floats that was not there before."""

import torch
from torch import nn

import cortado


def test_layers_before_folded_norms_are_quantized():
    inputs, labels = torch.randn(60, 3, 4, 4), torch.randint(2, (60,))
    parts = [(inputs[at : at + 20], labels[at : at + 20]) for at in (0, 20, 40)]
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 2)
    )
    _, report = cortado.compress(net.eval(), cortado.Task(*parts), "simplify/norms | quantize/activations")
    assert not any("cannot be folded" in note for note in report.stages[1].notes)
