"""Picked: channels in another order, by an index that is stored with the network."""

import torch
from torch import Tensor, nn


class Picked(nn.Module):
    """Returns the channels (axis 1) that `index` names, in its order."""

    index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(channels))

    def forward(self, values: Tensor) -> Tensor:
        """Return (N, channels, ...) from values (N, channels, ...)."""
        # OpenVINO's index_select picks other channels.
        return values[:, self.index]


def changes_places(order: Tensor) -> bool:
    """Return whether an order changes anything."""
    return not torch.equal(order.cpu(), torch.arange(len(order)))


def set_order(module: Picked | None, order: Tensor) -> None:
    """Make a module pick channels in this order, if there is one."""
    if module is not None:
        module.index.copy_(order)
