"""Settling: end what is rounded anew at every step of a training, weights and signals alike."""

import copy

from torch import nn

from cortado.forms.hold import settle as settle_weights
from cortado.forms.latent import Latent
from cortado.signals.signal import Signal, settle_signals


def settle(network: nn.Module) -> None:
    """Replace what is still in training by what it becomes, in place."""
    settle_weights(network)
    settle_signals(network)


def in_training(network: nn.Module) -> bool:
    """Whether some weight or signal of a network is still rounded anew at every step."""
    return any(
        isinstance(module, Latent) or (isinstance(module, Signal) and module.settle() is not module)
        for module in network.modules()
    )


def settled(network: nn.Module) -> nn.Module:
    """The network itself when nothing in it is in training, else a settled copy."""
    if not in_training(network):
        return network
    made = copy.deepcopy(network)
    settle(made)
    return made
