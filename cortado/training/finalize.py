"""Settling: end what is rounded again at every step of a training, weights and activations alike."""

import copy

from torch import nn

from cortado.parts.activations.quantizer import ActivationQuantizer, finalize_quantizers
from cortado.parts.forms.attach import finalize_forms as finalize_weights
from cortado.parts.forms.latent import Latent


def finalize(network: nn.Module) -> None:
    """Replace what is still in training by what it becomes, in place."""
    finalize_weights(network)
    finalize_quantizers(network)


def in_training(network: nn.Module) -> bool:
    """Whether some weight or activation of a network is still rounded again at every step."""
    return any(
        isinstance(module, Latent) or (isinstance(module, ActivationQuantizer) and module.finalize() is not module)
        for module in network.modules()
    )


def finalized_copy(network: nn.Module) -> nn.Module:
    """The network itself when nothing in it is in training, else a finalized copy."""
    if not in_training(network):
        return network
    made = copy.deepcopy(network)
    finalize(made)
    return made
