"""Averaging: the mean of a network's weights over the last steps of a training.  Izmailov et al., 2018."""

import torch
from torch import Tensor, nn


class WeightMean:
    """The mean of a network's state over the steps at which it was taken."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.count = network, 0
        self.mean: dict[str, Tensor] = {}

    def take(self) -> None:
        """Take the present state into the mean; whole numbers are the last ones."""
        self.count += 1
        for name, value in self.network.state_dict().items():
            if not isinstance(value, Tensor):
                continue
            if name not in self.mean or not value.is_floating_point():
                self.mean[name] = value.detach().clone()
            else:
                self.mean[name].lerp_(value.detach(), 1 / self.count)

    def apply(self) -> None:
        """Write the mean into the network, if it was taken."""
        state = self.network.state_dict()
        with torch.no_grad():
            for name, value in self.mean.items():
                state[name].copy_(value)
