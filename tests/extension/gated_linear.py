"""A user's own layer class: a gated linear unit with its own parameters, in a small network."""

import torch
from torch import nn
from torch.nn import functional


class GatedLinear(nn.Module):
    """y = (x V) * sigmoid(x W): Dauphin et al., 2017, as one layer with two weights (inputs, outputs) and a bias."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.value = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.gate = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, values):
        return (values @ self.value + self.bias) * torch.sigmoid(values @ self.gate)


class GatedNet(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.one, self.two, self.head = GatedLinear(6, 32), GatedLinear(32, 32), nn.Linear(32, 4)
        self.eval()

    def forward(self, values):
        hidden = self.one(values)
        return self.head(functional.relu(hidden + self.two(hidden)))
